# Finds every library the project uses and works around LibTorch's habits in one place.

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # Precompiled headers need both: gcc's checksum of the header and ccache's leave to use it.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env
    CCACHE_SLOPPINESS=pch_defines,time_macros ${CCACHE_PROGRAM})
  add_compile_options(-fpch-preprocess)
endif()

find_package(Threads REQUIRED)
find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)
find_package(yaml-cpp REQUIRED)
find_package(CLI11 REQUIRED)
find_package(nlohmann_json REQUIRED)
find_path(HAX_XXHASH_INCLUDE xxhash.h REQUIRED)

# LibTorch ships fmt 12 headers, which hide the system's fmt that spdlog was built for. A folder
# that holds nothing but a link to the system's headers goes in front of them everywhere.
find_path(HAX_FMT_INCLUDE fmt/core.h PATHS /usr/include /usr/local/include NO_DEFAULT_PATH REQUIRED)
file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/fmt_first)
file(CREATE_LINK ${HAX_FMT_INCLUDE}/fmt ${CMAKE_BINARY_DIR}/fmt_first/fmt SYMBOLIC)

# LibTorch: Torch_DIR, then CMAKE_PREFIX_PATH, then the active Python's torch, then .venv.
# Its own CMake package insists on a CUDA toolkit and probes for GPUs although the headers used here
# need neither, so the imported target is made from the folder itself.
set(_hax_torch_roots "")
if(Torch_DIR)
  list(APPEND _hax_torch_roots ${Torch_DIR}/../../..)
endif()
foreach(prefix IN LISTS CMAKE_PREFIX_PATH)
  list(APPEND _hax_torch_roots ${prefix} ${prefix}/../..)
endforeach()
foreach(python python3 ${CMAKE_SOURCE_DIR}/.venv/bin/python3)
  execute_process(
    COMMAND ${python} -c "import importlib.util as u; s = u.find_spec('torch'); print(s.submodule_search_locations[0] if s else '')"
    OUTPUT_VARIABLE _hax_python_torch OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET
    RESULT_VARIABLE _hax_python_status)
  if(_hax_python_status EQUAL 0 AND _hax_python_torch)
    list(APPEND _hax_torch_roots ${_hax_python_torch})
  endif()
endforeach()

set(HAX_TORCH_WANTED 2.11)
set(HAX_TORCH_ROOT "")
foreach(root IN LISTS _hax_torch_roots)
  if(NOT EXISTS ${root}/include/torch/version.h)
    continue()
  endif()
  file(STRINGS ${root}/include/torch/version.h _hax_line REGEX "define TORCH_VERSION \"")
  string(REGEX MATCH "[0-9]+\\.[0-9]+\\.[0-9]+[^\"]*" _hax_version "${_hax_line}")
  if(_hax_version MATCHES "^${HAX_TORCH_WANTED}\\.")
    get_filename_component(HAX_TORCH_ROOT ${root} REALPATH)
    set(HAX_TORCH_VERSION ${_hax_version})
    break()
  endif()
  message(STATUS "passing over LibTorch ${_hax_version} in ${root}: ${HAX_TORCH_WANTED} is wanted")
endforeach()
if(NOT HAX_TORCH_ROOT)
  message(FATAL_ERROR
    "LibTorch ${HAX_TORCH_WANTED} was not found. Run scripts/setup, which puts it into .venv, or name "
    "one with -DTorch_DIR=.../share/cmake/Torch or -DCMAKE_PREFIX_PATH=...")
endif()
message(STATUS "LibTorch ${HAX_TORCH_VERSION}: ${HAX_TORCH_ROOT}")

add_library(hax_torch INTERFACE)
target_include_directories(hax_torch SYSTEM INTERFACE
  ${HAX_TORCH_ROOT}/include ${HAX_TORCH_ROOT}/include/torch/csrc/api/include)
target_link_options(hax_torch INTERFACE -Wl,--allow-shlib-undefined -Wl,-rpath,${HAX_TORCH_ROOT}/lib)
target_link_libraries(hax_torch INTERFACE ${HAX_TORCH_ROOT}/lib/libtorch.so
  ${HAX_TORCH_ROOT}/lib/libtorch_cpu.so ${HAX_TORCH_ROOT}/lib/libc10.so Threads::Threads)
if(HAX_CUDA)
  if(NOT EXISTS ${HAX_TORCH_ROOT}/lib/libtorch_cuda.so)
    message(FATAL_ERROR "LibTorch in ${HAX_TORCH_ROOT} is built for CPUs alone: configure with -DHAX_CUDA=OFF")
  endif()
  # Nothing of ours names a symbol of it: the CUDA backend registers itself when it is loaded.
  target_link_libraries(hax_torch INTERFACE -Wl,--push-state,--no-as-needed
    ${HAX_TORCH_ROOT}/lib/libtorch_cuda.so ${HAX_TORCH_ROOT}/lib/libc10_cuda.so -Wl,--pop-state)
endif()
