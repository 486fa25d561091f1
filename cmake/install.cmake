# The package: find_package(blt 0.1 REQUIRED) and link blt::blt (or blt::blt_ops alone), which bring LibTorch and nothing else.
include(CMakePackageConfigHelpers)
set(_package ${CMAKE_INSTALL_LIBDIR}/cmake/blt)

install(TARGETS blt_ops blt EXPORT blt-targets LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/blt DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
install(EXPORT blt-targets NAMESPACE blt:: DESTINATION ${_package})
configure_package_config_file(cmake/blt-config.cmake.in ${PROJECT_BINARY_DIR}/blt-config.cmake INSTALL_DESTINATION ${_package})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/blt-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/blt-config.cmake ${PROJECT_BINARY_DIR}/blt-config-version.cmake third_party/libtorch.cmake
        DESTINATION ${_package})
