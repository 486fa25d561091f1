# blt_cpu_kernels(target file...): compiles each file once per instruction set, with BLT_ISA naming the namespace that its
# kernels live in. src/ops/cpu/dispatch.h picks one at run time. The files know pointers, not tensors, so they compile in a second.
set(BLT_ISA_NAMES baseline)
set(BLT_ISA_FLAGS_baseline "")
# ThreadSanitizer looks at threads, which are the same for all of them, and makes these files slow to compile.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64" AND NOT BLT_SANITIZE MATCHES "thread")
  list(APPEND BLT_ISA_NAMES avx2 avx512)
  set(BLT_ISA_FLAGS_avx2 -march=x86-64-v3)
  set(BLT_ISA_FLAGS_avx512 -march=x86-64-v4 -mprefer-vector-width=512)
endif()

function(blt_cpu_kernels target)
  foreach(isa IN LISTS BLT_ISA_NAMES)
    set(object ${target}_kernels_${isa})
    if(TARGET ${object})  # each operator adds its own files
      list(TRANSFORM ARGN PREPEND ${CMAKE_CURRENT_SOURCE_DIR}/ OUTPUT_VARIABLE files)
      target_sources(${object} PRIVATE ${files})
      continue()
    endif()
    add_library(${object} OBJECT ${ARGN})
    target_include_directories(${object} PRIVATE ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR}/include)
    target_compile_definitions(${object} PRIVATE BLT_ISA=isa_${isa})
    # No -ffast-math, no contraction: results may not depend on how the compiler regroups or fuses at one place.
    target_compile_options(${object} PRIVATE ${BLT_ISA_FLAGS_${isa}} -O3 -ffp-contract=off -fno-math-errno -fno-trapping-math -Wno-psabi)
    blt_compile_options(${object})
    target_sources(${target} PRIVATE $<TARGET_OBJECTS:${object}>)
  endforeach()
  if("avx512" IN_LIST BLT_ISA_NAMES)
    target_compile_definitions(${target} PRIVATE BLT_X86_ISAS)
  endif()
endfunction()
