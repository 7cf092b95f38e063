# librollcall_cuda.so: everything that needs NVIDIA headers. The rollcall binary never links it; it is opened at run
# time where a driver is found (comms/cuda_plugin.cpp), so one binary serves nodes with and without a GPU.
if(ROLLCALL_CUDA STREQUAL "OFF")
  message(STATUS "CUDA plugin: off")
  return()
endif()

find_program(ROLLCALL_NVCC nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH /usr/local/cuda PATH_SUFFIXES bin)
cmake_path(GET ROLLCALL_NVCC PARENT_PATH cuda_root)
cmake_path(GET cuda_root PARENT_PATH cuda_root)
# The wheel beside torch first: at run time it is torch's NCCL that is loaded.
set(nccl_roots "${ROLLCALL_NVIDIA_WHEELS}/nccl" "${cuda_root}")
find_path(NCCL_INCLUDE_DIR nccl.h HINTS ${nccl_roots} PATH_SUFFIXES include)
find_library(NCCL_LIBRARY NAMES libnccl.so.2 nccl HINTS ${nccl_roots} PATH_SUFFIXES lib lib64)
if(NOT (ROLLCALL_NVCC AND NCCL_INCLUDE_DIR AND NCCL_LIBRARY))
  set(missing "nvcc: ${ROLLCALL_NVCC}, nccl.h: ${NCCL_INCLUDE_DIR}, libnccl.so.2: ${NCCL_LIBRARY}")
  if(ROLLCALL_CUDA STREQUAL "ON")
    message(FATAL_ERROR "ROLLCALL_CUDA=ON needs a CUDA toolkit and NCCL (${missing})")
  endif()
  message(STATUS "CUDA plugin: off (${missing})")
  return()
endif()

if(NOT CMAKE_CUDA_COMPILER)
  set(CMAKE_CUDA_COMPILER "${ROLLCALL_NVCC}")
endif()
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 80 90)
endif()
enable_language(CUDA)
set(CMAKE_CUDA_STANDARD 17)
find_package(CUDAToolkit REQUIRED)

add_library(rollcall_cuda MODULE
  cuda/failure.cpp
  cuda/nccl_communicator.cpp
  cuda/plugin.cpp
  ${CMAKE_SOURCE_DIR}/model/cuda/cuda_device.cu
  ${CMAKE_SOURCE_DIR}/model/cuda/gpu_decoder.cu
  ${CMAKE_SOURCE_DIR}/model/cuda/plugin_decoder.cu
)
target_include_directories(rollcall_cuda PRIVATE ${CMAKE_SOURCE_DIR})
target_include_directories(rollcall_cuda SYSTEM PRIVATE ${NCCL_INCLUDE_DIR})
target_compile_options(rollcall_cuda PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Werror -Wshadow>)
target_link_libraries(rollcall_cuda PRIVATE ${NCCL_LIBRARY} CUDA::cudart CUDA::cublas)
message(STATUS "CUDA plugin: on, nvcc ${CMAKE_CUDA_COMPILER_VERSION}, ${NCCL_LIBRARY}")
