# The CUDA toolkit, where there is a CUDA compiler and LibTorch was built with CUDA. A build without them is as good a one: BLT_CUDA=AUTO
# looks, ON wants them, OFF does not look. Afterwards BLT_CUDA is ON or OFF.
if(NOT BLT_CUDA STREQUAL OFF)
  include(CheckLanguage)
  check_language(CUDA)
  find_library(_c10_cuda c10_cuda PATHS ${BLT_TORCH_ROOT}/lib NO_DEFAULT_PATH NO_CACHE)
  if(CMAKE_CUDA_COMPILER AND _c10_cuda)
    set(CMAKE_CUDA_ARCHITECTURES 90 CACHE STRING "The GPUs to compile kernels for: 80 (A100), 90 (H100, H200), 100 (B200), ...")
    enable_language(CUDA)
    find_package(CUDAToolkit REQUIRED)
    add_library(blt::c10_cuda SHARED IMPORTED GLOBAL)
    set_target_properties(blt::c10_cuda PROPERTIES IMPORTED_LOCATION ${_c10_cuda})
    set(BLT_CUDA ON)
  elseif(BLT_CUDA STREQUAL AUTO)
    set(BLT_CUDA OFF)
  elseif(NOT CMAKE_CUDA_COMPILER)
    message(FATAL_ERROR "BLT_CUDA=ON, but there is no CUDA compiler: put nvcc on PATH, name it with CUDACXX=<cuda>/bin/nvcc, or build with "
                        "-DBLT_CUDA=OFF.")
  else()
    message(FATAL_ERROR "BLT_CUDA=ON, but the LibTorch in ${BLT_TORCH_ROOT} was built without CUDA: name one that was with "
                        "-DTorch_DIR=<libtorch>/share/cmake/Torch, or build with -DBLT_CUDA=OFF.")
  endif()
endif()
