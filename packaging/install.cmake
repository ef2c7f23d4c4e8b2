# Manual pages and what `cmake --install` puts where.
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

# mount(8) looks for its helpers in /sbin only, whatever the prefix. Link and units name the program where this
# installation puts it: the prefix may be given as late as by `cmake --install --prefix`.
set(VMFS_MOUNT_HELPER_DIR /sbin CACHE PATH "where mount(8) finds mount.vmfs")
set(VMFS_UNIT_DIR /lib/systemd/system CACHE PATH "where systemd finds its units")
install(CODE "
  set(program \"\${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_BINDIR}/vmfs\")
  set(link \"\$ENV{DESTDIR}${VMFS_MOUNT_HELPER_DIR}/mount.vmfs\")
  file(MAKE_DIRECTORY \"\$ENV{DESTDIR}${VMFS_MOUNT_HELPER_DIR}\")
  message(STATUS \"Installing: \${link}\")
  file(REMOVE \"\${link}\")
  file(CREATE_LINK \"\${program}\" \"\${link}\" SYMBOLIC)
  foreach(unit vmfs@.service vmfs-ready@.service)
    file(READ \"${CMAKE_SOURCE_DIR}/packaging/systemd/\${unit}\" text)
    string(REPLACE /usr/bin/vmfs \"\${program}\" text \"\${text}\")
    file(WRITE \"${CMAKE_BINARY_DIR}/systemd/\${unit}\" \"\${text}\")
    file(INSTALL \"${CMAKE_BINARY_DIR}/systemd/\${unit}\" DESTINATION \"${VMFS_UNIT_DIR}\")
  endforeach()")
install(DIRECTORY ${CMAKE_SOURCE_DIR}/packaging/systemd/libvirt-guests.service.d DESTINATION ${VMFS_UNIT_DIR})
