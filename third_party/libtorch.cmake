# Makes the imported target blt::libtorch from the files of a LibTorch, without running its own CMake package: that one stops
# with a fatal error where the library was built with CUDA and the machine has no CUDA toolkit, which is the common fresh machine.
# Installed beside blt-config.cmake, so that who links libblt has the same.
#
# Looked for, in this order: Torch_DIR; CMAKE_PREFIX_PATH; both from the environment; the folders in BLT_LIBTORCH_HINTS, which
# the includer sets; the torch of the Python on PATH. Sets BLT_TORCH_ROOT and BLT_TORCH_VERSION, or BLT_TORCH_ERROR.
set(BLT_LIBTORCH_VERSION 2.11.0)
set(BLT_TORCH_ERROR "")

function(_blt_find_libtorch)
  set(how "name one with -DTorch_DIR=<libtorch>/share/cmake/Torch (or install it with libblt's tools/setup).")
  if(Torch_DIR AND NOT EXISTS ${Torch_DIR}/TorchConfig.cmake)  # said, but wrong: not to be passed over in silence
    set(BLT_TORCH_ERROR "Torch_DIR is ${Torch_DIR}, but there is no TorchConfig.cmake in it: ${how}" PARENT_SCOPE)
    return()
  endif()
  find_file(config TorchConfig.cmake NO_CACHE NO_DEFAULT_PATH
    PATHS ${Torch_DIR} ${CMAKE_PREFIX_PATH} ENV Torch_DIR ENV CMAKE_PREFIX_PATH ${BLT_LIBTORCH_HINTS}
    PATH_SUFFIXES share/cmake/Torch Torch)
  if(NOT config)
    find_program(python NAMES python3 python NO_CACHE)
    if(python)
      execute_process(COMMAND ${python} -c "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])"
                      OUTPUT_VARIABLE torch OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
      find_file(config TorchConfig.cmake NO_CACHE NO_DEFAULT_PATH PATHS ${torch}/share/cmake/Torch)
    endif()
  endif()
  if(NOT config)
    set(BLT_TORCH_ERROR "LibTorch ${BLT_LIBTORCH_VERSION} was not found: ${how}" PARENT_SCOPE)
    return()
  endif()

  cmake_path(SET root NORMALIZE "${config}/../../../..")
  cmake_path(GET root PARENT_PATH root)  # without the slash at the end
  set(version "of unknown version")
  if(EXISTS ${root}/build-version)   # LibTorch archives
    file(STRINGS ${root}/build-version version LIMIT_COUNT 1)
  elseif(EXISTS ${root}/version.py)  # wheels
    file(STRINGS ${root}/version.py version REGEX "^__version__ = ")
    string(REGEX REPLACE ".*'(.*)'" "\\1" version "${version}")
  endif()
  if(NOT version MATCHES "^${BLT_LIBTORCH_VERSION}([+]|$)")
    set(BLT_TORCH_ERROR "libblt needs LibTorch ${BLT_LIBTORCH_VERSION}, but the one in ${root} is ${version}: ${how}" PARENT_SCOPE)
    return()
  endif()
  set(BLT_TORCH_ROOT ${root} PARENT_SCOPE)
  set(BLT_TORCH_VERSION ${version} PARENT_SCOPE)
endfunction()

if(NOT TARGET blt::libtorch)
  _blt_find_libtorch()
  if(NOT BLT_TORCH_ERROR)
    add_library(blt::libtorch INTERFACE IMPORTED GLOBAL)
    target_include_directories(blt::libtorch INTERFACE ${BLT_TORCH_ROOT}/include ${BLT_TORCH_ROOT}/include/torch/csrc/api/include)
    target_compile_features(blt::libtorch INTERFACE cxx_std_20)
    # The device libraries load when libtorch.so does; host code links none of their symbols.
    foreach(_name c10 torch_cpu torch)
      add_library(blt::${_name} SHARED IMPORTED GLOBAL)
      set_target_properties(blt::${_name} PROPERTIES IMPORTED_LOCATION ${BLT_TORCH_ROOT}/lib/lib${_name}.so)
      target_link_libraries(blt::libtorch INTERFACE blt::${_name})
    endforeach()
    # Their own dependencies (cuBLAS, cuDNN, …) are found through their run path when a program starts, not when it is linked.
    target_link_options(blt::libtorch INTERFACE LINKER:--allow-shlib-undefined)
  endif()
endif()
