#include "distorch/media/ffmpeg/failures.h"

#include <fmt/format.h>

#include <cstdio>

#include "distorch/media/ffmpeg/handles.h"

namespace distorch::media::ffmpeg {

namespace {

constexpr std::size_t kLongest = 300;  // characters of a message

std::string& last_message() {
  thread_local std::string text;
  return text;
}

/// The first line is kept: others follow from it.
void keep(void* /*whose*/, int level, const char* format, va_list values) {
  if (level > AV_LOG_ERROR) return;
  char text[kLongest];
  std::vsnprintf(text, sizeof text, format, values);
  auto& kept = last_message();
  if (!kept.empty()) return;
  kept = text;
  while (!kept.empty() && (kept.back() == '\n' || kept.back() == '.')) kept.pop_back();
}

}  // namespace

std::string text_of(int code) {
  char text[AV_ERROR_MAX_STRING_SIZE] = {};
  av_strerror(code, text, sizeof text);
  const auto& message = last_message();
  return message.empty() ? std::string(text) : fmt::format("{}: {}", text, message);
}

void keep_messages() { av_log_set_callback(keep); }
void forget_messages() { last_message().clear(); }

}  // namespace distorch::media::ffmpeg
