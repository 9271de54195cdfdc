#pragma once
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "distorch/graph/value.h"
#include "distorch/media/video.h"

namespace distorch::nodes {

/// A widget that a format of VHS_VideoCombine brings, by its name; null where there is none.
using WidgetValue = std::function<graph::Json(const std::string& name)>;

/// How VHS_VideoCombine writes one of its "video/..." formats. Source: VideoHelperSuite,
/// video_formats/*.json.
struct VideoFormat {
  const char* name;  // "h264-mp4"
  const char* extension;
  const char* container;
  const char* encoder;
  const char* sound;  // the encoder of its sound; "": it takes none
  media::Colours colours = media::Colours::Bt709;
  /// Frames are given with 16 bits a channel whatever the widgets say.
  bool deep = false;
};

/// nullptr where there is none of that name ("video/h264-mp4").
const VideoFormat* find_video_format(const std::string& name);
/// The choices of `format`.
std::vector<std::string> combine_formats();
/// What each choice brings: {"video/h264-mp4": [["pix_fmt", [...]], ...]}
graph::Json combine_widgets();

/// How frames of that size are encoded; without container settings of its sound.
media::VideoOptions combine_options(const VideoFormat& format, const WidgetValue& widget, int width,
                                    int height, media::Rate rate);
/// Whether the frames are to be given with 16 bits a channel.
bool is_deep(const VideoFormat& format, const WidgetValue& widget);
/// The widget's value, else its default.
std::string widget_text(const VideoFormat& format, const WidgetValue& widget,
                        const std::string& name);
/// Whether a widget that says yes or no is there and says yes.
bool widget_flag(const VideoFormat& format, const WidgetValue& widget, const std::string& name);

}  // namespace distorch::nodes
