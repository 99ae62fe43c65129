# `make install`: program, libraries, header, pkg-config file, man page, completions, model.
file(RELATIVE_PATH DURE_PC_TO_PREFIX /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
configure_file(cmake/dure.pc.in dure.pc @ONLY)
install(TARGETS dure RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(TARGETS libdure ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(TARGETS libdure_shared LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY include/dure DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
install(FILES ${CMAKE_BINARY_DIR}/dure.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
install(DIRECTORY models/ DESTINATION ${CMAKE_INSTALL_DATADIR}/dure FILES_MATCHING PATTERN "*.gguf")

# The man page and the completions come out of the program's own option tables.
set(share ${CMAKE_BINARY_DIR}/share)
foreach(form man bash zsh fish)
    list(APPEND share_files ${share}/dure.${form})
    add_custom_command(OUTPUT ${share}/dure.${form} DEPENDS dure VERBATIM
        COMMAND ${CMAKE_COMMAND} -E make_directory ${share}
        COMMAND sh -c "\"$0\" help --as ${form} > \"$1\"" $<TARGET_FILE:dure> ${share}/dure.${form})
endforeach()
add_custom_target(dure_share DEPENDS ${share_files})
install(FILES ${share}/dure.man DESTINATION ${CMAKE_INSTALL_MANDIR}/man1 RENAME dure.1)
install(FILES ${share}/dure.bash DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME dure)
install(FILES ${share}/dure.zsh DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions RENAME _dure)
install(FILES ${share}/dure.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
