// At which descriptor numbers a daemon finds what its holder gives it. An interface between versions
// of the program.
#pragma once

namespace vmfs {

inline constexpr int kInheritedControl = 3;  // a SOCK_SEQPACKET socket to the holder
inline constexpr int kInheritedMemory = 4;   // see ConnectionMemory
inline constexpr int kInheritedFuse = 5;     // /dev/fuse, mounted
inline constexpr int kInheritedClones = 6;   // and the following: its clones
inline constexpr unsigned kClonesMax = 64;
// What the holder has open itself lies from here on.
inline constexpr int kFirstUninherited = kInheritedClones + static_cast<int>(kClonesMax);

// What a daemon says: the first byte, then text.
inline constexpr char kSaysReady = 'R';
inline constexpr char kSaysError = 'E';
inline constexpr unsigned kMessageMax = 4096;  // bytes

}  // namespace vmfs
