"""What is compared: the native file system, a plain FUSE pass-through, and vmfs with and without a peer, each on file
systems of loop files; and fio, which works on them."""
import atexit
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
TICKS = os.sysconf('SC_CLK_TCK')


def say(text):
    print(text, file=sys.stderr, flush=True)


def command(*arguments, **keywords):
    done = subprocess.run(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          **keywords)
    if done.returncode != 0:
        raise RuntimeError(f'{" ".join(arguments)}: exit status {done.returncode}\n'
                           f'{done.stdout}{done.stderr}')
    return done.stdout


class Undo:
    """What must be undone whatever happens, last first."""

    def __init__(self):
        self.steps = []
        atexit.register(self.run)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, lambda *_: sys.exit(1))

    def add(self, step):
        self.steps.append(step)

    def run(self):
        # A second signal must not cut the cleaning up short.
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        while self.steps:
            try:
                self.steps.pop()()
            except Exception as error:  # the rest must still be undone
                say(f'while cleaning up: {error}')


class Disk:
    """An XFS file system on a loop file."""

    def __init__(self, undo, base, name, size, buffered):
        self.file = os.path.join(base, name + '.img')
        self.mount = os.path.join(base, name)
        os.mkdir(self.mount)
        with open(self.file, 'wb') as image:
            image.truncate(size)
        undo.add(lambda: os.path.exists(self.file) and os.unlink(self.file))
        self.device = command('losetup', '--find', '--show',
                              '--direct-io=' + ('off' if buffered else 'on'), self.file).strip()
        undo.add(lambda: command('losetup', '--detach', self.device))
        command('mkfs.xfs', '-q', '-f', '-m', 'reflink=1', self.device)
        command('mount', '-o', 'discard', self.device, self.mount)
        undo.add(lambda: command('umount', self.mount))

    def bytes_written(self):
        with open(f'/sys/block/{os.path.basename(self.device)}/stat') as stat:
            return int(stat.read().split()[6]) * 512


class Processes:
    """Daemons whose CPU and memory count."""

    def __init__(self, pids):
        self.pids = [pid for pid in pids if pid]

    def cpu_seconds(self):
        total = 0
        for pid in self.pids:
            with open(f'/proc/{pid}/stat') as stat:
                fields = stat.read().rsplit(')', 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        return total / TICKS

    def resident_bytes(self):
        total = 0
        for pid in self.pids:
            with open(f'/proc/{pid}/status') as status:
                total += int(re.search(r'VmRSS:\s+(\d+)', status.read()).group(1)) * KIB
        return total


class System:
    name = ''
    disks = ()

    def __init__(self):
        self.directory = None

    def image(self):
        return os.path.join(self.directory, 'bench.img')

    def processes(self):
        return Processes([])

    def settle(self):
        """Waits until nothing is under way."""
        command('sync', '-f', self.disks[0].mount)

    def unapplied(self):
        return 0

    def lag(self):
        return 0

    def warm_up(self, path, size):
        pass

    def stop(self):
        pass


class Native(System):
    name = 'native'

    def __init__(self, disk):
        super().__init__()
        self.disks = (disk,)
        self.directory = os.path.join(disk.mount, 'native')
        os.makedirs(self.directory, exist_ok=True)


class PassThrough(System):
    name = 'pass-through'

    def __init__(self, undo, base, disk, program, threads, parallel):
        super().__init__()
        self.disks = (disk,)
        source = os.path.join(disk.mount, 'pass')
        self.directory = os.path.join(base, 'pass-mount')
        os.makedirs(source, exist_ok=True)
        os.makedirs(self.directory, exist_ok=True)
        self.process = subprocess.Popen([program, source, self.directory, '--threads', str(threads)] +
                                        (['--parallel'] if parallel else []))
        undo.add(self.stop)
        wait_for(lambda: os.path.ismount(self.directory), 'the pass-through mount')

    def processes(self):
        return Processes([self.process.pid])

    def stop(self):
        if self.process.poll() is None:
            subprocess.run(['fusermount3', '-u', '-z', self.directory])
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()


def wait_for(condition, what, seconds=60):
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise RuntimeError(f'waited {seconds} s for {what}')
        time.sleep(0.05)


class Vmfs(System):
    def __init__(self, undo, base, disks, name, program, journal, mode=None, tls=None):
        super().__init__()
        self.name, self.program = name, program
        self.disks, self.journal = disks, journal
        self.mounts, self.stores, self.peers = [], [], mode is not None
        count = 2 if self.peers else 1
        for i in range(count):
            store = os.path.join(disks[i].mount, 'store-' + name)
            mount = os.path.join(base, f'{name}-{"ab"[i]}')
            os.makedirs(mount, exist_ok=True)
            self.stores.append(store)
            self.mounts.append(mount)
            listen = f'127.0.0.1:{free_port()}'
            if i == 0:
                arguments = ['init', store, '--name', name, '--node', 'a',
                             '--journal-size', f'{journal // MIB}M']
                if self.peers:
                    arguments += ['--listen', listen, '--mode', mode]
                command(self.program, *arguments)
            else:
                token = command(self.program, 'token', self.stores[0]).strip().split()[-1]
                command(self.program, 'join', store, token, '--node', 'b', '--listen', listen)
            if tls == 'off':
                edit(os.path.join(store, 'vmfs.toml'), r'(?m)^tls = .*$', 'tls = "off"')
            self.mount(undo, store, mount)
        self.directory = self.mounts[0]
        if self.peers:
            command(self.program, 'wait', self.directory, 'in-sync', '--timeout', '60')
            command(self.program, 'wait', self.directory, 'ready', '--timeout', '60')

    def mount(self, undo, store, mount):
        undo.add(lambda: shutil.rmtree(store, ignore_errors=True))
        undo.add(lambda: self.unmount(mount))
        command(self.program, 'mount', store, mount)

    def unmount(self, mount):
        if not os.path.ismount(mount):
            return
        try:
            subprocess.run([self.program, 'umount', mount], timeout=120, check=True)
        except (subprocess.SubprocessError, OSError) as error:
            say(f'{mount}: {error}; detaching it')
            subprocess.run(['umount', '-l', mount])

    def stop(self):
        for mount in self.mounts:
            self.unmount(mount)
        for store in self.stores:
            shutil.rmtree(store, ignore_errors=True)

    def status(self, node=0):
        done = subprocess.run([self.program, 'status', self.mounts[node], '--json'],
                              stdout=subprocess.PIPE, text=True)
        found = json.loads(done.stdout)
        return found[0] if isinstance(found, list) else found

    def warm_up(self, path, size):
        """The journal's segments are made, full of zeros, when they are first needed; a volume in use
        has them all."""
        self.warm = getattr(self, 'warm', 0) + size
        while self.warm < self.journal * 5 // 4:
            write_image(path, size)
            self.settle()
            self.warm += size

    def processes(self):
        return Processes([self.status(i)['daemon']['pid'] for i in range(len(self.mounts))])

    def unapplied(self):
        return max(self.status(i)['journal']['unapplied_bytes'] for i in range(len(self.mounts)))

    def lag(self):
        return max((peer['lag_bytes'] for peer in self.status()['peers']), default=0)

    def settle(self):
        wait_for(lambda: self.lag() < 64 * KIB, f'{self.name}: the peer to catch up', 300)
        wait_for(lambda: self.unapplied() == 0, f'{self.name}: all to be applied', 300)
        for disk in self.disks:
            command('sync', '-f', disk.mount)


def edit(path, pattern, replacement):
    with open(path) as file:
        text = file.read()
    changed, count = re.subn(pattern, replacement, text)
    if count == 0:
        raise RuntimeError(f'{path}: nothing matches {pattern}')
    with open(path, 'w') as file:
        file.write(changed)


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def fio(arguments):
    output = command('fio', '--name=bench', '--ioengine=io_uring', '--output-format=json',
                     '--group_reporting', '--randrepeat=0', '--thread', *arguments)
    return json.loads(output[output.index('{'):])['jobs'][0]


def write_image(path, size):
    """An image all of whose blocks have been written."""
    fio([f'--filename={path}', '--rw=write', '--bs=1m', '--direct=1', '--iodepth=4',
         f'--size={size}', '--end_fsync=1'])
