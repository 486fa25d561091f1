# How each dependency is found: a package that is installed first (apt's or the user's, through CMAKE_PREFIX_PATH); with
# -DBLT_DOWNLOAD=ON a pinned source otherwise. Nothing is copied into this repository.
file(GLOB BLT_LIBTORCH_HINTS ${PROJECT_SOURCE_DIR}/.deps/venv/lib/python3*/site-packages/torch)  # where tools/setup installs it
include(${CMAKE_CURRENT_LIST_DIR}/libtorch.cmake)
if(BLT_TORCH_ERROR)
  message(FATAL_ERROR "${BLT_TORCH_ERROR}")
endif()
set(BLT_TORCH_ROOT ${BLT_TORCH_ROOT} CACHE INTERNAL "The LibTorch in use, for tools/quickstart and the tests")
include(${CMAKE_CURRENT_LIST_DIR}/cuda.cmake)
include(${CMAKE_CURRENT_LIST_DIR}/packages.cmake)
include(${CMAKE_CURRENT_LIST_DIR}/parquet.cmake)
