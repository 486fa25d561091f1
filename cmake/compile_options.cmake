# Everything that is said to the compiler about our own targets, in one place.
find_program(BLT_MOLD mold)
find_program(BLT_CCACHE ccache)

function(blt_compile_options target)
  target_compile_features(${target} PUBLIC cxx_std_20)
  set_target_properties(${target} PROPERTIES
    CXX_EXTENSIONS OFF
    CXX_VISIBILITY_PRESET hidden
    VISIBILITY_INLINES_HIDDEN ON
    POSITION_INDEPENDENT_CODE ON)
  target_compile_options(${target} PRIVATE
    $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wshadow -Wnon-virtual-dtor -Wno-unknown-pragmas>
    $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<BOOL:${BLT_WERROR}>>:-Werror>)
  if(BLT_CCACHE)
    set_target_properties(${target} PROPERTIES CXX_COMPILER_LAUNCHER ${BLT_CCACHE} CUDA_COMPILER_LAUNCHER ${BLT_CCACHE})
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
      target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-fpch-preprocess>)  # ccache sees the precompiled header
    endif()
  endif()
  if(BLT_MOLD)
    target_link_options(${target} PRIVATE -fuse-ld=mold)
  endif()
  if(BLT_SANITIZE)
    target_compile_options(${target} PRIVATE -fsanitize=${BLT_SANITIZE} -fno-omit-frame-pointer)
    target_link_options(${target} PRIVATE -fsanitize=${BLT_SANITIZE})
  endif()
endfunction()
