# The emulation's own tests, and the program's tests on emulated GPUs.
file(GLOB emulation_test_sources CONFIGURE_DEPENDS *_test.cpp)
add_executable(emulation_tests ${emulation_test_sources})
set_source_files_properties(${emulation_test_sources} PROPERTIES
  COMPILE_OPTIONS "-include;${CMAKE_CURRENT_SOURCE_DIR}/cuda_emulation.h")
target_link_libraries(emulation_tests PRIVATE nccl_emulation espalier_base GTest::gtest_main)
add_test(NAME emulation_tests COMMAND emulation_tests)

if(NOT cuda_linked)
  return()  # tests/run.sh emulation starts the programs of build/release with the module
endif()
# Open MPI keeps memory until the end, which is no leak of ours.
set(orders forward reverse greedy)
set(kinds_of_streams eager lazy lazy)
set(emulated_gpu "ESPALIER_TEST_DEVICE=cuda;OMP_NUM_THREADS=1;ASAN_OPTIONS=detect_leaks=0")
foreach(order streams IN ZIP_LISTS orders kinds_of_streams)
  add_test(NAME unit_tests_emulated_${order} COMMAND unit_tests)
  set_tests_properties(unit_tests_emulated_${order} PROPERTIES TIMEOUT 1800
    ENVIRONMENT "${emulated_gpu};ESPALIER_EMULATION_ORDER=${order};ESPALIER_EMULATION_STREAMS=${streams}")
endforeach()

set(as_root "OMPI_ALLOW_RUN_AS_ROOT=1;OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1;OMPI_MCA_btl_vader_single_copy_mechanism=none")
foreach(ranks 1 2 4)
  foreach(streams eager lazy)
    set(name mpi_tests_emulated_${streams}_${ranks})
    add_test(NAME ${name} COMMAND mpirun --oversubscribe -n ${ranks} $<TARGET_FILE:mpi_tests> --ranks=${ranks})
    set_tests_properties(${name} PROPERTIES TIMEOUT 1800 PROCESSORS ${ranks}
      ENVIRONMENT "${emulated_gpu};${as_root};ESPALIER_EMULATION_STREAMS=${streams}")
  endforeach()
endforeach()
