# Finds every library the project uses and works around LibTorch's habits in one place.

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env
    CCACHE_SLOPPINESS=pch_defines,time_macros ${CCACHE_PROGRAM})
  # What ccache asks for beside the sloppiness before it caches files with a precompiled header.
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-fpch-preprocess>)
  endif()
endif()

find_package(Threads REQUIRED)
find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)
find_package(yaml-cpp REQUIRED)
find_package(CLI11 REQUIRED)
find_package(nlohmann_json REQUIRED)
find_path(HAX_XXHASH_INCLUDE xxhash.h REQUIRED)

# LibTorch ships fmt 12 headers, which hide the system's fmt that spdlog was built for. A folder
# that holds nothing but a link to the system's headers goes in front of them everywhere. (A search for the header
# itself would find LibTorch's where CMAKE_PREFIX_PATH names that.)
get_target_property(HAX_FMT_INCLUDE fmt::fmt INTERFACE_INCLUDE_DIRECTORIES)
list(GET HAX_FMT_INCLUDE 0 HAX_FMT_INCLUDE)
file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/fmt_first)
file(CREATE_LINK ${HAX_FMT_INCLUDE}/fmt ${CMAKE_BINARY_DIR}/fmt_first/fmt SYMBOLIC)

if(NOT HAX_TORCH)
  set(HAX_CUDA OFF)
  return()
endif()

# LibTorch: Torch_DIR, CMAKE_PREFIX_PATH, the one of the last configuration, the active Python's, .venv's.
# (scripts/setup looks in the same places.) Its own CMake package insists on a CUDA toolkit and probes
# for GPUs although the headers used here need neither, so the target is made from the folder itself.
set(HAX_TORCH_WANTED 2.11)
set(_hax_roots "")
foreach(dir IN ITEMS ${Torch_DIR} $ENV{Torch_DIR})
  list(APPEND _hax_roots ${dir}/../../..)
endforeach()
string(REPLACE ":" ";" _hax_prefixes "${CMAKE_PREFIX_PATH};$ENV{CMAKE_PREFIX_PATH}")
foreach(prefix IN LISTS _hax_prefixes)
  list(APPEND _hax_roots ${prefix} ${prefix}/../..)
endforeach()
list(APPEND _hax_roots ${HAX_TORCH_ROOT})
foreach(python python3 ${CMAKE_SOURCE_DIR}/.venv/bin/python3)
  execute_process(
    COMMAND ${python} -c "import importlib.util as u; s = u.find_spec('torch'); print(s.submodule_search_locations[0] if s else '')"
    OUTPUT_VARIABLE _hax_python_torch OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  list(APPEND _hax_roots ${_hax_python_torch})
endforeach()

set(_hax_found "")
foreach(root IN LISTS _hax_roots)
  if(NOT EXISTS ${root}/share/cmake/Torch/TorchConfigVersion.cmake)
    continue()
  endif()
  file(STRINGS ${root}/share/cmake/Torch/TorchConfigVersion.cmake _hax_line REGEX "set\\(PACKAGE_VERSION ")
  string(REGEX MATCH "[0-9]+\\.[0-9]+\\.[0-9]+[^\"]*" HAX_TORCH_VERSION "${_hax_line}")
  if("${HAX_TORCH_VERSION}." MATCHES "^${HAX_TORCH_WANTED}\\.")
    get_filename_component(_hax_found ${root} REALPATH)
    break()
  endif()
  message(STATUS "passing over LibTorch ${HAX_TORCH_VERSION} in ${root}: ${HAX_TORCH_WANTED} is wanted")
endforeach()
if(NOT _hax_found)
  message(FATAL_ERROR
    "LibTorch ${HAX_TORCH_WANTED} was not found. Run scripts/setup, which puts it into .venv, or name "
    "one with -DTorch_DIR=.../share/cmake/Torch or -DCMAKE_PREFIX_PATH=...")
endif()
set(HAX_TORCH_ROOT ${_hax_found} CACHE INTERNAL "LibTorch's folder")
message(STATUS "LibTorch ${HAX_TORCH_VERSION}: ${HAX_TORCH_ROOT}")

add_library(hax_torch INTERFACE)
target_include_directories(hax_torch SYSTEM INTERFACE
  ${HAX_TORCH_ROOT}/include ${HAX_TORCH_ROOT}/include/torch/csrc/api/include)
target_link_options(hax_torch INTERFACE -Wl,--allow-shlib-undefined -Wl,-rpath,${HAX_TORCH_ROOT}/lib)
target_link_libraries(hax_torch INTERFACE
  ${HAX_TORCH_ROOT}/lib/libtorch_cpu.so ${HAX_TORCH_ROOT}/lib/libc10.so Threads::Threads)
# LibTorch is built with NDEBUG, and some of its classes have another layout without it.
target_compile_definitions(hax_torch INTERFACE $<$<NOT:$<CONFIG:Release>>:NDEBUG>)
# at::parallel_for is a template: it runs in parallel only in code that is compiled with OpenMP, and must
# share LibTorch's own thread pool, so the runtime that LibTorch ships is the one to link.
file(GLOB HAX_TORCH_GOMP ${HAX_TORCH_ROOT}/lib/libgomp*.so*)
if(NOT HAX_TORCH_GOMP)
  find_library(HAX_TORCH_GOMP NAMES gomp libgomp.so.1 REQUIRED)
endif()
# (clang's own would be a second one: what clang builds runs such loops on one thread.)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  target_compile_options(hax_torch INTERFACE -fopenmp)
endif()
target_link_libraries(hax_torch INTERFACE ${HAX_TORCH_GOMP})

if(EXISTS ${HAX_TORCH_ROOT}/lib/libtorch_cuda.so)
  option(HAX_CUDA "Run models on NVIDIA GPUs too; OFF: CPUs alone" ON)
else()
  option(HAX_CUDA "Run models on NVIDIA GPUs too; OFF: CPUs alone" OFF)
endif()
if(HAX_CUDA)
  if(NOT EXISTS ${HAX_TORCH_ROOT}/lib/libtorch_cuda.so)
    message(FATAL_ERROR "LibTorch in ${HAX_TORCH_ROOT} is built for CPUs alone: configure with -DHAX_CUDA=OFF")
  endif()
  # Not every program of ours names a symbol of it, but each needs the backend, which registers itself.
  target_link_libraries(hax_torch INTERFACE -Wl,--push-state,--no-as-needed
    ${HAX_TORCH_ROOT}/lib/libtorch_cuda.so ${HAX_TORCH_ROOT}/lib/libc10_cuda.so -Wl,--pop-state)

  # The compiler: CUDACXX, PATH, the usual place, or the one that scripts/setup made in .venv.
  if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
    find_program(HAX_NVCC nvcc HINTS /usr/local/cuda/bin
      ${CMAKE_SOURCE_DIR}/.venv/lib/python3.10/site-packages/nvidia/cu13/bin
      ${CMAKE_SOURCE_DIR}/.venv/lib/python3.11/site-packages/nvidia/cu13/bin
      ${CMAKE_SOURCE_DIR}/.venv/lib/python3.12/site-packages/nvidia/cu13/bin
      ${CMAKE_SOURCE_DIR}/.venv/lib/python3.13/site-packages/nvidia/cu13/bin
      ${CMAKE_SOURCE_DIR}/.venv/lib/python3.14/site-packages/nvidia/cu13/bin)
    if(NOT HAX_NVCC)
      message(FATAL_ERROR "no CUDA compiler was found: scripts/setup installs one into .venv; or name one with "
        "CUDACXX=.../nvcc, or build for CPUs alone with -DHAX_CUDA=OFF")
    endif()
    set(CMAKE_CUDA_COMPILER ${HAX_NVCC})
  endif()
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES "80-real;90-real;90-virtual" CACHE STRING "GPU architectures")
  endif()
  if(CCACHE_PROGRAM AND NOT CMAKE_CUDA_COMPILER_LAUNCHER)
    set(CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE_PROGRAM})
  endif()
  # One CUDA runtime, shared with LibTorch.
  set(CMAKE_CUDA_RUNTIME_LIBRARY None)
  enable_language(CUDA)
  set(CMAKE_CUDA_STANDARD 17)
  set(CMAKE_CUDA_STANDARD_REQUIRED ON)
  find_library(HAX_CUDART NAMES libcudart.so.13 cudart REQUIRED
    HINTS ${HAX_TORCH_ROOT}/../nvidia/cu13/lib ${CMAKE_CUDA_IMPLICIT_LINK_DIRECTORIES})
endif()
