# hax_library(NAME [TORCH [AUTOGRAD]] DIRS folder... LINK library... LINK_PRIVATE library...) makes a static library
# of every source in the folders; a folder without sources makes a library of headers alone. TORCH gives
# it LibTorch and the shared precompiled header, AUTOGRAD the one that has autograd in it.

add_library(hax_options INTERFACE)
target_include_directories(hax_options INTERFACE ${CMAKE_SOURCE_DIR})
target_include_directories(hax_options BEFORE INTERFACE ${CMAKE_BINARY_DIR}/fmt_first)
target_compile_definitions(hax_options INTERFACE FMT_HEADER_ONLY SPDLOG_FMT_EXTERNAL)
target_compile_options(hax_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wno-unused-parameter>
  $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<BOOL:${HAX_WERROR}>>:-Werror>)
target_link_libraries(hax_options INTERFACE Threads::Threads)

# Release programs meet files from anywhere: they are position-independent, what is resolved at the start is read-only
# from then on, library calls and returns are checked, and large frames touch every page.
if(CMAKE_BUILD_TYPE STREQUAL "Release")
  include(CheckCXXCompilerFlag)
  # 3 from gcc 12 and clang 15 on; others say it is 2 to them.
  set(_hax_fortify 2)
  if((CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_GREATER_EQUAL 12) OR
      (CMAKE_CXX_COMPILER_ID STREQUAL "Clang" AND CMAKE_CXX_COMPILER_VERSION VERSION_GREATER_EQUAL 15))
    set(_hax_fortify 3)
  endif()
  set(_hax_hardening -fPIE -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=${_hax_fortify})
  foreach(flag -fstack-protector-strong -fstack-clash-protection -fcf-protection)
    string(MAKE_C_IDENTIFIER "HAX_HAS${flag}" has)
    check_cxx_compiler_flag(${flag} ${has})
    if(${has})
      list(APPEND _hax_hardening ${flag})
    endif()
  endforeach()
  target_compile_options(hax_options INTERFACE "$<$<COMPILE_LANGUAGE:CXX>:${_hax_hardening}>")
  target_link_options(hax_options INTERFACE -pie -Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack)
endif()

set(_hax_sanitize ${HAX_SANITIZE})
if(HAX_FUZZ)
  list(APPEND _hax_sanitize fuzzer-no-link)
endif()
if(_hax_sanitize)
  list(JOIN _hax_sanitize "," _hax_sanitize)
  # A report ends the program, so that a test that provokes one fails.
  set(_hax_sanitize -fsanitize=${_hax_sanitize} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_compile_options(hax_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:${_hax_sanitize}>)
  target_link_options(hax_options INTERFACE ${_hax_sanitize})
  if(HAX_TORCH)
    # Optimising the checks in LibTorch's headers takes more than half the time of a build.
    target_compile_options(hax_torch INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-O0>)
    if(HAX_FUZZ)
      # No fuzz target is made of it.
      target_compile_options(hax_torch INTERFACE -fno-sanitize=fuzzer-no-link)
    endif()
  endif()
endif()

# Programs share one libstdc++ with LibTorch: with a second, linked in, objects that cross over corrupt the heap.
# Some compilers come with a static one alone; then the system's shared one is named, and found first.
execute_process(COMMAND ${CMAKE_CXX_COMPILER} -print-file-name=libstdc++.so
  OUTPUT_VARIABLE _hax_libstdcxx OUTPUT_STRIP_TRAILING_WHITESPACE)
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU AND NOT EXISTS "${_hax_libstdcxx}")
  find_library(HAX_LIBSTDCXX NAMES libstdc++.so.6 REQUIRED)
  target_link_libraries(hax_options INTERFACE ${HAX_LIBSTDCXX})
endif()

function(hax_library name)
  cmake_parse_arguments(ARG "TORCH;AUTOGRAD" "" "DIRS;LINK;LINK_PRIVATE" ${ARGN})
  set(sources "")
  foreach(dir IN LISTS ARG_DIRS)
    file(GLOB found CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${dir}/*.cpp)
    if(HAX_CUDA)
      file(GLOB kernels CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${dir}/*.cu)
      list(APPEND found ${kernels})
    else()
      list(FILTER found EXCLUDE REGEX "_cuda[.]cpp$")
    endif()
    list(APPEND sources ${found})
  endforeach()
  if(sources)
    add_library(${name} STATIC ${sources})
    set(scope PUBLIC)
  else()
    add_library(${name} INTERFACE)
    set(scope INTERFACE)
  endif()
  target_link_libraries(${name} ${scope} hax_options ${ARG_LINK})
  if(sources AND ARG_LINK_PRIVATE)
    target_link_libraries(${name} PRIVATE ${ARG_LINK_PRIVATE})
  endif()
  if(sources AND ARG_TORCH)
    target_link_libraries(${name} PUBLIC hax_torch)
    set(header torch)
    if(ARG_AUTOGRAD)
      set(header autograd)
    endif()
    hax_use_torch_headers(${name} ${header})
  endif()
endfunction()

# LibTorch's headers cost up to half a minute a file: targets share the precompiled lib/ops/torch.h or
# lib/ops/autograd.h, whichever `header` names.
function(hax_use_torch_headers name header)
  set(owner hax_${header}_headers)
  if(NOT TARGET ${owner})
    file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/${header}_headers.cpp
      CONTENT "// The owner of the shared precompiled header.\n")
    add_library(${owner} OBJECT ${CMAKE_BINARY_DIR}/${header}_headers.cpp)
    target_link_libraries(${owner} PUBLIC hax_options hax_torch)
    target_precompile_headers(${owner} PRIVATE ${CMAKE_SOURCE_DIR}/lib/ops/${header}.h)
  endif()
  target_precompile_headers(${name} REUSE_FROM ${owner})
endfunction()
