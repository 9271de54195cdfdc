# libdistorch_video.so: what is compiled against FFmpeg (distorch/media/ffmpeg/library.h). The program loads it with the first video:
# linked into the program, FFmpeg's libraries would cost every start tens of milliseconds.
pkg_check_modules(FFMPEG REQUIRED IMPORTED_TARGET GLOBAL libavformat>=59 libavcodec>=59.37 libavutil>=57.28 libswscale>=6
  libswresample>=4.7)
file(GLOB video_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/distorch/media/ffmpeg/*.cpp)
list(REMOVE_ITEM video_sources ${CMAKE_SOURCE_DIR}/distorch/media/ffmpeg/library.cpp)
# What of the program it needs is compiled into it once more: the program's own functions are not shared.
add_library(distorch_video MODULE ${video_sources} ${CMAKE_SOURCE_DIR}/distorch/media/image.cpp
  ${CMAKE_SOURCE_DIR}/distorch/base/error.cpp)
target_include_directories(distorch_video PRIVATE ${CMAKE_SOURCE_DIR})
target_compile_options(distorch_video PRIVATE ${DISTORCH_WARNINGS})
target_link_libraries(distorch_video PRIVATE PkgConfig::FFMPEG)
set_target_properties(distorch_video PROPERTIES
  LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib CXX_VISIBILITY_PRESET hidden)
add_dependencies(distorch_media distorch_video)
