# Manual pages and what `cmake --install` puts where. The systemd units name /usr/bin/vmfs: they are
# rewritten for another prefix.
include(GNUInstallDirs)

find_program(SCDOC scdoc)
if(SCDOC)
  set(MANUAL_PAGES "")
  foreach(page vmfs.1 vmfs.toml.5)
    set(source ${CMAKE_SOURCE_DIR}/docs/man/${page}.scd)
    set(target ${CMAKE_BINARY_DIR}/docs/${page})
    add_custom_command(OUTPUT ${target} DEPENDS ${source}
                       COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_BINARY_DIR}/docs
                       COMMAND ${SCDOC} < ${source} > ${target} VERBATIM)
    list(APPEND MANUAL_PAGES ${target})
    string(REGEX REPLACE ".*\\." "" section ${page})
    install(FILES ${target} DESTINATION ${CMAKE_INSTALL_MANDIR}/man${section} OPTIONAL)
  endforeach()
  # `ninja man`; not part of the default build, which must not need scdoc.
  add_custom_target(man DEPENDS ${MANUAL_PAGES})
endif()

install(TARGETS vmfs RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})

# mount(8) looks for its helpers in /sbin only, whatever the prefix.
set(VMFS_MOUNT_HELPER_DIR /sbin CACHE PATH "where mount(8) finds mount.vmfs")
install(CODE "
  set(link \"\$ENV{DESTDIR}${VMFS_MOUNT_HELPER_DIR}/mount.vmfs\")
  file(MAKE_DIRECTORY \"\$ENV{DESTDIR}${VMFS_MOUNT_HELPER_DIR}\")
  message(STATUS \"Installing: \${link}\")
  file(REMOVE \"\${link}\")
  file(CREATE_LINK \"${CMAKE_INSTALL_FULL_BINDIR}/vmfs\" \"\${link}\" SYMBOLIC)")

set(VMFS_UNIT_DIR /lib/systemd/system CACHE PATH "where systemd finds its units")
foreach(unit vmfs@.service vmfs-ready@.service)
  file(READ ${CMAKE_SOURCE_DIR}/packaging/systemd/${unit} text)
  string(REPLACE "/usr/bin/vmfs" "${CMAKE_INSTALL_FULL_BINDIR}/vmfs" text "${text}")
  file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/systemd/${unit} CONTENT "${text}" @ONLY)
  install(FILES ${CMAKE_BINARY_DIR}/systemd/${unit} DESTINATION ${VMFS_UNIT_DIR})
endforeach()
