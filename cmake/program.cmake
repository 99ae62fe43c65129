# The program, with the default model inside, and what `make install` needs beside it.
file(GLOB sources CONFIGURE_DEPENDS src/cli/*.c)
add_executable(dure ${sources})
target_link_libraries(dure PRIVATE libdure PkgConfig::EDIT)
file(RELATIVE_PATH plugin_dir /prefix/${CMAKE_INSTALL_BINDIR} /prefix/${CMAKE_INSTALL_LIBDIR}/dure)
set_source_files_properties(src/cli/ranks.c PROPERTIES
    COMPILE_DEFINITIONS DURE_PLUGIN_DIR="${plugin_dir}")

# What `mpirun dure train` loads, beside the program: nothing else needs MPI.
if(OMPI_FOUND)
    add_library(dure_mpi MODULE src/train/ranks_mpi.c)
    set_target_properties(dure_mpi PROPERTIES OUTPUT_NAME dure-mpi)
    target_link_libraries(dure_mpi PRIVATE dure_flags PkgConfig::OMPI)
    add_dependencies(dure dure_mpi)
    install(TARGETS dure_mpi LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}/dure)
endif()
file(GLOB model CONFIGURE_DEPENDS models/dure-tiny.gguf)
if(model)
    set_source_files_properties(src/cli/default_model.c PROPERTIES
        COMPILE_DEFINITIONS DURE_DEFAULT_MODEL="${model}" OBJECT_DEPENDS ${model})
endif()

add_library(libdure_shared SHARED EXCLUDE_FROM_ALL ${objects})
set_target_properties(libdure_shared PROPERTIES OUTPUT_NAME dure SOVERSION 0 VERSION ${PROJECT_VERSION})
target_link_libraries(libdure_shared PRIVATE dure_flags)

include(cmake/install.cmake)
