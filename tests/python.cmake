# BLT_TEST_PYTHON: the Python that has torch, for the tests that compare with it; theirs to say what else they need.
find_program(BLT_TEST_PYTHON python3 PATHS ${PROJECT_SOURCE_DIR}/.deps/venv/bin NO_DEFAULT_PATH
             DOC "A Python with torch (and transformers, for the parity tests)")
if(NOT BLT_TEST_PYTHON)
  find_program(BLT_TEST_PYTHON python3)
endif()
