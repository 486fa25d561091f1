# Arrow's reader of Parquet, where it is found: BLT_PARQUET=AUTO looks, ON wants it, OFF does not look. Afterwards BLT_PARQUET is ON or OFF.
#
# Looked for, in this order: the pyarrow folder that BLT_PYARROW names; an installed Arrow, by its CMake package (Parquet_DIR, CMAKE_PREFIX_PATH);
# the pyarrow in .deps/venv, where `tools/setup --parquet` puts it. A wheel of pyarrow has Arrow's C++ headers and libraries inside.
set(BLT_PYARROW "" CACHE PATH "A pyarrow package (.../site-packages/pyarrow) whose Arrow is taken; empty: an installed Arrow, or that of .deps/venv.")

# Sets `include` and `libraries` from the wheel in `folder`; leaves them empty where they are not in it.
function(_blt_arrow_of_wheel folder)
  file(GLOB parquet ${folder}/libparquet.so.*)
  file(GLOB arrow ${folder}/libarrow.so.*)
  if(parquet AND arrow AND EXISTS ${folder}/include/parquet/file_reader.h)
    set(include ${folder}/include PARENT_SCOPE)
    set(libraries ${parquet} ${arrow} PARENT_SCOPE)
  endif()
endfunction()

if(NOT BLT_PARQUET STREQUAL OFF)
  add_library(blt_arrow INTERFACE)
  set(include "")
  set(BLT_ARROW_FROM "")  # for the summary
  file(GLOB _pyarrow ${PROJECT_SOURCE_DIR}/.deps/venv/lib/python3*/site-packages/pyarrow)
  if(BLT_PYARROW)
    set(_pyarrow ${BLT_PYARROW})
  else()
    find_package(Parquet QUIET CONFIG)
  endif()
  if(TARGET Parquet::parquet_shared)
    target_link_libraries(blt_arrow INTERFACE Parquet::parquet_shared)
    set(BLT_ARROW_FROM "Arrow ${Parquet_VERSION} (${Parquet_DIR})")
    set(BLT_ARROW_FOLDER $<TARGET_FILE_DIR:Parquet::parquet_shared>)  # for the run path of what is installed
  elseif(_pyarrow)
    list(GET _pyarrow 0 _pyarrow)
    _blt_arrow_of_wheel(${_pyarrow})
    if(include)
      target_include_directories(blt_arrow SYSTEM INTERFACE ${include})
      target_link_libraries(blt_arrow INTERFACE ${libraries})
      set(BLT_ARROW_FOLDER ${_pyarrow})
      set(BLT_ARROW_FROM "the Arrow in ${_pyarrow}")
    endif()
  endif()
  if(BLT_ARROW_FROM)
    set(BLT_PARQUET ON)
  elseif(BLT_PYARROW)
    message(FATAL_ERROR "BLT_PYARROW is ${BLT_PYARROW}, but Arrow's libraries and headers are not in it: it is the folder <Python>/site-packages/pyarrow of a "
                        "wheel from PyPI.")
  elseif(BLT_PARQUET STREQUAL ON)
    message(FATAL_ERROR "BLT_PARQUET=ON, but Arrow was not found: run tools/setup --parquet, name an installed one with -DParquet_DIR=<arrow>/lib/cmake/Parquet, or "
                        "a pyarrow with -DBLT_PYARROW=<Python>/site-packages/pyarrow.")
  else()
    set(BLT_PARQUET OFF)
  endif()
endif()
