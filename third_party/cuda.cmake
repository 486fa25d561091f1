# The CUDA toolkit, cuDNN and NCCL, where there is a CUDA compiler. A build without them is as good a one: BLT_CUDA=AUTO looks, ON wants
# them, OFF does not look. Afterwards BLT_CUDA is ON or OFF.
if(NOT BLT_CUDA STREQUAL OFF)
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    find_package(CUDAToolkit REQUIRED)
    find_library(BLT_CUDNN cudnn HINTS ${CUDAToolkit_LIBRARY_DIR} ${BLT_TORCH_ROOT}/../nvidia/cudnn/lib)
    find_library(BLT_NCCL nccl HINTS ${CUDAToolkit_LIBRARY_DIR} ${BLT_TORCH_ROOT}/../nvidia/nccl/lib)
    set(BLT_CUDA ON)
  elseif(BLT_CUDA STREQUAL AUTO)
    set(BLT_CUDA OFF)
  else()
    message(FATAL_ERROR "BLT_CUDA=ON, but there is no CUDA compiler: put nvcc on PATH, name it with CUDACXX=<cuda>/bin/nvcc, or build with "
                        "-DBLT_CUDA=OFF.")
  endif()
endif()
