# The small libraries. Debian and Ubuntu names: libfmt-dev libspdlog-dev libyaml-cpp-dev nlohmann-json3-dev libcli11-dev
# libsimdjson-dev libxxhash-dev libzstd-dev zlib1g-dev libgtest-dev libbenchmark-dev; libgloo-dev for training with several ranks.
include(FetchContent)

macro(blt_package name debian url sha256)  # blt_package(fmt libfmt-dev https://….tar.gz <its SHA-256>)
  find_package(${name} QUIET)
  if(NOT ${name}_FOUND)
    if(NOT BLT_DOWNLOAD)
      message(FATAL_ERROR "${name} was not found: apt-get install ${debian} (tools/setup does it), or configure with -DBLT_DOWNLOAD=ON.")
    endif()
    FetchContent_Declare(${name} URL ${url} URL_HASH SHA256=${sha256} SYSTEM)
    FetchContent_MakeAvailable(${name})
  endif()
endmacro()

# The hashes are those of GitHub's archives of the tags, as conan-center-index, Homebrew, Bazel and Spack users record them independently.
set(SPDLOG_FMT_EXTERNAL ON)  # of a downloaded spdlog: one fmt in the process
blt_package(fmt libfmt-dev https://github.com/fmtlib/fmt/archive/refs/tags/9.1.0.tar.gz
            5dea48d1fcddc3ec571ce2058e13910a0d4a6bab4cc09a809d8b1dd1c88ae6f2)
blt_package(spdlog libspdlog-dev https://github.com/gabime/spdlog/archive/refs/tags/v1.12.0.tar.gz
            4dccf2d10f410c1e2feaff89966bfc49a1abb29ef6f08246335b110e001e09a9)
blt_package(yaml-cpp libyaml-cpp-dev https://github.com/jbeder/yaml-cpp/archive/refs/tags/0.8.0.tar.gz
            fbe74bbdcee21d656715688706da3c8becfd946d92cd44705cc6098bb23b3a16)
blt_package(nlohmann_json nlohmann-json3-dev https://github.com/nlohmann/json/archive/refs/tags/v3.11.3.tar.gz
            0d8ef5af7f9794e3263480193c491549b2ba6cc74bb018906202ada498a79406)
blt_package(CLI11 libcli11-dev https://github.com/CLIUtils/CLI11/archive/refs/tags/v2.3.2.tar.gz
            aac0ab42108131ac5d3344a9db0fdf25c4db652296641955720a4fbe52334e22)
blt_package(simdjson libsimdjson-dev https://github.com/simdjson/simdjson/archive/refs/tags/v3.6.3.tar.gz
            afd8201cfb1abe927737d876441bb1f21730a9ee6078a1b8c6174e6463981fa3)
if(BLT_TESTS)
  blt_package(GTest libgtest-dev https://github.com/google/googletest/archive/refs/tags/v1.14.0.tar.gz
              8ad598c73ad796e0d8280b082cebd82a630d73e73cd3c70057938a6501bba5d7)
endif()
if(BLT_BENCH)
  blt_package(benchmark libbenchmark-dev https://github.com/google/benchmark/archive/refs/tags/v1.8.3.tar.gz
              6bc180a57d23d4d9515519f92b0c83d61b05b5bab188961f36ac7b06b0d9e9ce)
endif()
add_library(blt_simdjson INTERFACE)  # without its flags about threads
target_include_directories(blt_simdjson SYSTEM INTERFACE $<TARGET_PROPERTY:simdjson::simdjson,INTERFACE_INCLUDE_DIRECTORIES>)
target_link_libraries(blt_simdjson INTERFACE $<LINK_ONLY:simdjson::simdjson>)
find_package(ZLIB REQUIRED)
find_path(BLT_XXHASH_INCLUDE xxhash.h REQUIRED)
add_library(blt_xxhash INTERFACE)  # all of it is in the header
target_include_directories(blt_xxhash SYSTEM INTERFACE ${BLT_XXHASH_INCLUDE})
find_path(BLT_ZSTD_INCLUDE zstd.h REQUIRED)
find_library(BLT_ZSTD_LIBRARY zstd REQUIRED)
add_library(blt_zstd INTERFACE)
target_include_directories(blt_zstd SYSTEM INTERFACE ${BLT_ZSTD_INCLUDE})
target_link_libraries(blt_zstd INTERFACE ${BLT_ZSTD_LIBRARY})

# Gloo is inside LibTorch; its headers, which PyTorch's own includes, are not. Without them libblt trains with one rank only.
find_path(BLT_GLOO_INCLUDE gloo/rendezvous/store.h)
add_library(blt_gloo INTERFACE)
if(BLT_GLOO_INCLUDE)
  target_include_directories(blt_gloo SYSTEM INTERFACE ${BLT_GLOO_INCLUDE})
endif()

# NCCL is beside LibTorch, likewise. The header of the wheel that LibTorch brings is of its version; another must not be older, as LibTorch
# writes into structs of its size. Without it libblt trains with one GPU only.
if(BLT_CUDA)
  find_path(BLT_NCCL_INCLUDE nccl.h HINTS ${BLT_TORCH_ROOT}/../nvidia/nccl/include ${CUDAToolkit_INCLUDE_DIRS})
  if(BLT_NCCL_INCLUDE)
    add_library(blt_nccl INTERFACE)
    target_include_directories(blt_nccl SYSTEM INTERFACE ${BLT_NCCL_INCLUDE} ${CUDAToolkit_INCLUDE_DIRS})
  endif()
endif()

# LibTorch's include folder carries a newer fmt of its own, which would shadow the one that spdlog was built with: targets that
# link blt_fmt look in this folder of links first.
add_library(blt_fmt INTERFACE)
foreach(package fmt spdlog)
  if(${package}_SOURCE_DIR)  # downloaded
    set(_include ${${package}_SOURCE_DIR}/include)
  else()
    get_target_property(_include ${package}::${package} INTERFACE_INCLUDE_DIRECTORIES)
  endif()
  if(NOT _include)
    set(_include /usr/include)
  endif()
  find_path(_folder_${package} ${package}/${package}.h NAMES ${package}/core.h HINTS ${_include} NO_CACHE)
  file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/include_first)
  file(CREATE_LINK ${_folder_${package}}/${package} ${CMAKE_BINARY_DIR}/include_first/${package} SYMBOLIC)
endforeach()
target_include_directories(blt_fmt INTERFACE $<BUILD_INTERFACE:${CMAKE_BINARY_DIR}/include_first>)
target_link_libraries(blt_fmt INTERFACE spdlog::spdlog fmt::fmt)

# LibTorch brings the OpenMP library that its threads live in: libblt's loops belong into the same, not into the compiler's.
file(GLOB _gomp ${BLT_TORCH_ROOT}/lib/libgomp*.so*)
if(_gomp)
  list(GET _gomp 0 _gomp)
  set(OpenMP_gomp_LIBRARY ${_gomp} CACHE FILEPATH "The OpenMP library that LibTorch uses" FORCE)
endif()
