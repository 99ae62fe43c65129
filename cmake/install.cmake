# `make install`: program, libraries, header, pkg-config file, man page, completions, model.
configure_file(cmake/dure.pc.in dure.pc @ONLY)
install(TARGETS dure RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(TARGETS libdure ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(TARGETS libdure_shared LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} OPTIONAL)
install(DIRECTORY include/dure DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
install(FILES ${CMAKE_BINARY_DIR}/dure.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
install(DIRECTORY models/ DESTINATION ${CMAKE_INSTALL_DATADIR}/dure FILES_MATCHING PATTERN "*.gguf")
