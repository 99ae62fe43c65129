# Libraries (docs/DEPENDENCIES.md has the reason for each); tools/install-deps.sh installs them.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
pkg_check_modules(JANSSON REQUIRED IMPORTED_TARGET jansson>=2.14)
if(NOT DURE_CORE)
    pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8>=10.40)
    pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc>=2.6)
    pkg_check_modules(ZSTD REQUIRED IMPORTED_TARGET libzstd>=1.4)
    pkg_check_modules(EDIT REQUIRED IMPORTED_TARGET libedit>=3.1)
    pkg_check_modules(OMPI IMPORTED_TARGET ompi-c>=4.0) # optional
endif()
