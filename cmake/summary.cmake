# What was configured, in a few lines.
message(STATUS "libblt ${PROJECT_VERSION}: ${CMAKE_BUILD_TYPE}, LibTorch ${BLT_TORCH_VERSION} (${BLT_TORCH_ROOT})")
message(STATUS "  compiler ${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}, CPU kernels: ${BLT_ISA_NAMES}, CUDA: ${BLT_CUDA} ${CUDAToolkit_VERSION}")
if(NOT BLT_GLOO_INCLUDE)
  message(STATUS "  trains with one process only: there are no headers of Gloo (libgloo-dev)")
endif()
message(STATUS "  tools ${BLT_TOOLS}, tests ${BLT_TESTS}, benchmarks ${BLT_BENCH}, sanitizers '${BLT_SANITIZE}'")
