# libtorch from a torch wheel (pip install --no-deps is enough), through our own imported targets; find_package(Torch)
# would demand a CUDA toolkit and every NVIDIA wheel. Defines torch::c10 and torch::cpu.
set(ROLLCALL_TORCH_VERSION 2.11.0)
set(ROLLCALL_TORCH_DIR "" CACHE PATH "folder 'torch' of an installed wheel; asked of python3 when empty")

if(NOT ROLLCALL_TORCH_DIR)
  find_package(Python3 REQUIRED COMPONENTS Interpreter)
  execute_process(
    COMMAND ${Python3_EXECUTABLE} -c
            "from importlib.util import find_spec as f; s = f('torch'); print(s.submodule_search_locations[0] if s else '')"
    OUTPUT_VARIABLE torch_dir OUTPUT_STRIP_TRAILING_WHITESPACE)
  set(ROLLCALL_TORCH_DIR "${torch_dir}" CACHE PATH "" FORCE)
endif()
if(NOT EXISTS "${ROLLCALL_TORCH_DIR}/lib/libtorch_cpu.so")
  message(FATAL_ERROR "No libtorch_cpu.so under ROLLCALL_TORCH_DIR='${ROLLCALL_TORCH_DIR}'. Install the wheel with\n"
                      "  pip install --no-deps torch==${ROLLCALL_TORCH_VERSION} nvidia-cuda-runtime nvidia-cuda-cupti\n"
                      "and pass -DROLLCALL_TORCH_DIR=<site-packages>/torch, or run ./quickstart --build-only.")
endif()
file(STRINGS "${ROLLCALL_TORCH_DIR}/version.py" torch_version REGEX "^__version__")
if(NOT torch_version MATCHES "${ROLLCALL_TORCH_VERSION}")
  message(WARNING "Rollcall is tested with torch ${ROLLCALL_TORCH_VERSION}; found ${torch_version}")
endif()
cmake_path(GET ROLLCALL_TORCH_DIR PARENT_PATH site_packages)
set(ROLLCALL_NVIDIA_WHEELS "${site_packages}/nvidia")

add_library(torch::c10 SHARED IMPORTED)
set_target_properties(torch::c10 PROPERTIES IMPORTED_LOCATION "${ROLLCALL_TORCH_DIR}/lib/libc10.so")
# -idirafter: torch ships fmt 12; behind /usr/include it cannot shadow the fmt that spdlog was built with.
target_compile_options(torch::c10 INTERFACE "SHELL:-idirafter ${ROLLCALL_TORCH_DIR}/include"
                                            "SHELL:-idirafter ${ROLLCALL_TORCH_DIR}/include/torch/csrc/api/include")
# ATen headers then pull in only the operators they use: half the compile time.
target_compile_definitions(torch::c10 INTERFACE AT_PER_OPERATOR_HEADERS)

add_library(torch::cpu SHARED IMPORTED)
set_target_properties(torch::cpu PROPERTIES IMPORTED_LOCATION "${ROLLCALL_TORCH_DIR}/lib/libtorch_cpu.so")
target_link_libraries(torch::cpu INTERFACE torch::c10)
