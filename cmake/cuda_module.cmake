# libdistorch_cuda.so: what is compiled against torch's own CUDA headers (distorch/device/cuda/module.h). The program loads it
# where an NVIDIA driver is; building it needs the wheels of torch and of NVIDIA's CUDA headers, and no toolkit. Where torch
# has no CUDA half there is no module, and the program has no CUDA devices.
file(GLOB places "${TORCH_DIR}/../nvidia/cu*/include" "${TORCH_DIR}/../nvidia/cuda_runtime/include")
# Both files have to be in one place: a wheel alone lacks crt/, and the compiler must not take another version's.
find_path(CUDA_HEADERS crt/host_config.h
  PATHS ${places} "$ENV{CUDA_HOME}/include" /usr/local/cuda/include NO_DEFAULT_PATH)
if(NOT EXISTS "${CUDA_HEADERS}/cuda_runtime_api.h" OR NOT EXISTS "${TORCH_DIR}/lib/libtorch_cuda.so")
  message(STATUS "No module for NVIDIA devices: torch in ${TORCH_DIR} has no CUDA half, or the headers of "
    "nvidia-cuda-runtime and nvidia-cuda-crt are missing (tools/setup.sh installs all)")
  return()
endif()
file(GLOB cudart "${CUDA_HEADERS}/../lib/libcudart.so.*" "${CUDA_HEADERS}/../lib64/libcudart.so")

add_library(distorch_cuda MODULE ${CMAKE_SOURCE_DIR}/distorch/device/cuda/module/module.cpp)
target_include_directories(distorch_cuda PRIVATE ${CMAKE_SOURCE_DIR})
target_include_directories(distorch_cuda SYSTEM PRIVATE ${CUDA_HEADERS})
target_compile_options(distorch_cuda PRIVATE ${DISTORCH_WARNINGS})
target_link_libraries(distorch_cuda PRIVATE torch::torch
  "${TORCH_DIR}/lib/libtorch_cuda.so" "${TORCH_DIR}/lib/libc10_cuda.so" ${cudart})
# Torch's libraries are loaded before the module is: it names no folder of its own for them.
set_target_properties(distorch_cuda PROPERTIES
  LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib CXX_VISIBILITY_PRESET hidden SKIP_BUILD_RPATH TRUE)
if(cudart AND NOT DISTORCH_SANITIZE)
  target_link_options(distorch_cuda PRIVATE -Wl,-z,defs)  # a function that torch no longer has is found here
endif()
add_dependencies(distorch_device distorch_cuda)
add_test(NAME cuda_module
  COMMAND ${CMAKE_SOURCE_DIR}/tests/device/cuda_module_loads.sh ${TORCH_DIR}/lib $<TARGET_FILE:distorch_cuda>)
