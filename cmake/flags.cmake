# Compiler flags of every target (docs/HACKING.md says why).
set(CMAKE_C_STANDARD 11)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
if(NOT CMAKE_BUILD_TYPE)
    set(CMAKE_BUILD_TYPE Release)
endif()
set(CMAKE_C_FLAGS_RELEASE "-O3 -DNDEBUG")
set(CMAKE_C_FLAGS_DEBUG "-O1 -g")

option(DURE_WERROR "Treat warnings as errors" OFF)
set(DURE_SANITIZE "" CACHE STRING "Sanitizers, as -fsanitize takes them (address,undefined)")

option(DURE_FUZZ "Build the fuzz targets as libFuzzer programs (clang)" OFF)

add_library(dure_flags INTERFACE)
target_include_directories(dure_flags INTERFACE ${CMAKE_SOURCE_DIR}/src ${CMAKE_SOURCE_DIR}/include)
target_compile_definitions(dure_flags INTERFACE _GNU_SOURCE DURE_VERSION="${PROJECT_VERSION}")
target_compile_options(dure_flags INTERFACE
    -Wall -Wextra -Wshadow -Wvla -Wundef -Wcast-qual -Wpointer-arith -Wmissing-prototypes
    -Wstrict-prototypes -Wwrite-strings -Wformat=2 -Wimplicit-fallthrough
    -ffp-contract=off -fno-math-errno -fopenmp-simd -fvisibility=hidden
    $<$<BOOL:${DURE_WERROR}>:-Werror>
    "SHELL:-include ${CMAKE_SOURCE_DIR}/src/base/poison.h")
if(DURE_SANITIZE)
    target_compile_options(dure_flags INTERFACE -fsanitize=${DURE_SANITIZE} -fno-sanitize-recover=all
                           -fno-omit-frame-pointer)
    target_link_options(dure_flags INTERFACE -fsanitize=${DURE_SANITIZE})
endif()

# Kernel files <family>_<isa>.c are compiled for their instruction set, and only on its architecture.
function(dure_isa_flags)
    foreach(source IN LISTS ARGN)
        if(source MATCHES "_avx2\\.c$" AND DURE_X86)
            set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS
                "-mavx2;-mfma;-mf16c;-mbmi2")
        elseif(source MATCHES "_avx512\\.c$" AND DURE_X86)
            set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS
                "-mavx2;-mfma;-mf16c;-mbmi2;-mavx512f;-mavx512bw;-mavx512dq;-mavx512vl;-mavx512vnni;-mprefer-vector-width=512")
            if(source MATCHES "_(bf16|amx)_avx512\\.c$")
                set_property(SOURCE ${source} APPEND PROPERTY COMPILE_OPTIONS -mavx512bf16)
            endif()
            if(source MATCHES "_amx_avx512\\.c$")
                set_property(SOURCE ${source} APPEND PROPERTY COMPILE_OPTIONS -mamx-tile -mamx-bf16)
            endif()
        elseif(source MATCHES "_dot_neon\\.c$" AND DURE_ARM64)
            set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "-march=armv8.2-a+dotprod")
        elseif(source MATCHES "_(avx2|avx512|neon)\\.c$" AND NOT (source MATCHES "_neon" AND DURE_ARM64))
            set_source_files_properties(${source} PROPERTIES HEADER_FILE_ONLY TRUE)
        endif()
        # Fuzzing runs the portable kernels; sanitizers take minutes over the unrolled ones.
        if(DURE_FUZZ AND source MATCHES "_(avx2|avx512)\\.c$")
            set_property(SOURCE ${source} APPEND PROPERTY COMPILE_OPTIONS -fno-sanitize=all)
        endif()
        # What parses bytes from outside is compiled with conversion warnings too.
        if(source MATCHES "/(formats|text|data)/[^/]*\\.c$")
            set_property(SOURCE ${source} APPEND PROPERTY COMPILE_OPTIONS -Wconversion)
        endif()
    endforeach()
endfunction()

if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    set(DURE_X86 TRUE)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
    set(DURE_ARM64 TRUE)
endif()
