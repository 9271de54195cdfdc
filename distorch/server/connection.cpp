#include "distorch/server/connection.h"

#include <malloc.h>

#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/ssl/ssl_stream.hpp>
#include <boost/beast/websocket/rfc6455.hpp>
#include <limits>
#include <optional>
#include <utility>

#include "distorch/base/log.h"
#include "distorch/base/text.h"
#include "distorch/server/answer.h"
#include "distorch/server/body_stream.h"
#include "distorch/server/request_head.h"
#include "distorch/server/socket_session.h"

namespace distorch::server {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using Tcp = asio::ip::tcp;
using Code = beast::error_code;
using Clock = std::chrono::steady_clock;

constexpr std::size_t kPiece = 256u << 10;
// A peer that is refused while it still sends gets this long, and this many bytes, to read why.
constexpr std::chrono::seconds kLinger{2};
constexpr std::size_t kLingerBytes = 64u << 20;
constexpr std::chrono::seconds kHandshake{10};
// After a body of this size the allocator is asked to give back what its handler used.
constexpr std::size_t kLargeBody = 4u << 20;

std::int64_t now_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now().time_since_epoch())
      .count();
}

template <class Stream>
class Connection final : public Session, public std::enable_shared_from_this<Connection<Stream>> {
 public:
  Connection(Stream&& stream, Shared& shared, const Tcp::endpoint& peer)
      : stream_(std::move(stream)),
        shared_(shared),
        quiet_(stream_.get_executor()),
        peer_(plain_address(peer.address())),
        compress_(!peer.address().is_loopback() && peer_ != "127.0.0.1") {
    if (shared.options.compress_loopback) compress_ = true;
  }
  ~Connection() override {
    forget_body();
    release_body();
    shared_.sessions.remove(this);
  }

  void begin() {
    if constexpr (kEncrypted) {
      beast::get_lowest_layer(stream_).expires_after(kHandshake);
      stream_.async_handshake(asio::ssl::stream_base::server, [self = self()](Code error) {
        if (!error) self->read_head();
      });
    } else {
      read_head();
    }
  }

  // There are too many connections: says so and closes. Nothing is read before it.
  void refuse() {
    if constexpr (!kEncrypted) {
      closing_ = true;
      respond(refusal(503, "this server has as many connections as it allows"));
    }
  }

  void finish() override {
    post([self = self()] {
      self->closing_ = true;
      if (self->idle_since_ != 0 || self->streaming_) self->close_now();
    });
  }
  void close() override {
    post([self = self()] { self->close_now(); });
  }
  std::int64_t idle_since() const override { return idle_since_; }

 private:
  static constexpr bool kEncrypted = !std::is_same_v<Stream, beast::tcp_stream>;
  using Parser = http::request_parser<http::string_body>;

  std::shared_ptr<Connection> self() { return this->shared_from_this(); }

  template <class Work>
  void post(Work work) {
    asio::post(stream_.get_executor(), std::move(work));
  }

  beast::tcp_stream& tcp() { return beast::get_lowest_layer(stream_); }

  void close_now() {
    Code ignored;
    quiet_.cancel();
    tcp().socket().shutdown(Tcp::socket::shutdown_both, ignored);
    tcp().close();
  }

  void forget_body() {
    parser_.reset();
    std::string().swap(request_.body);
    request_.stored_body.reset();
    body_file_.reset();
  }

  // What was held of a body is free by now.
  void release_body() {
    shared_.body_bytes -= held_bytes_;
    const bool large = std::exchange(held_bytes_, 0) >= kLargeBody;
    if (!large || shared_.stopping || shared_.trimming.exchange(true)) return;
    asio::post(shared_.handlers, [&shared = shared_] {
      shared.trimming = false;
      ::malloc_trim(0);
    });
  }

  void read_head() {
    if (shared_.stopping || closing_) return close_now();
    release_body();
    request_ = {};
    parser_.emplace();
    parser_->header_limit(static_cast<std::uint32_t>(shared_.options.header_bytes));
    // Set by on_head; Boost 1.74 takes no limit at all for a limit of nothing.
    parser_->body_limit(std::numeric_limits<std::uint64_t>::max());
    idle_since_ = now_ms();
    tcp().expires_after(shared_.options.idle);
    http::async_read_header(stream_, buffer_, *parser_,
                            [self = self()](Code error, std::size_t) { self->on_head(error); });
  }

  void on_head(Code error) {
    idle_since_ = 0;
    if (error) return refuse_broken(error);
    std::string fault = read_request_head(parser_->get(), request_);
    request_.peer = peer_;
    if (!fault.empty()) {
      closing_ = true;
      return respond(refusal(400, fault));
    }
    const bool is_socket = beast::websocket::is_upgrade(parser_->get());
    if (auto answer = shared_.gate.check(request_, is_socket)) {
      if (!parser_->is_done() || answer->status == 400) closing_ = true;
      return respond(std::move(*answer));
    }
    if (is_socket && shared_.sockets && is_socket_address(request_.path)) return become_socket();
    const std::size_t limit =
        is_upload(request_.path) ? shared_.options.upload_bytes : shared_.options.body_bytes;
    const auto length = parser_->content_length();
    if (length && *length > limit) return refuse_large(limit);
    limit_ = limit;
    parser_->body_limit(limit);
    body_since_ = Clock::now();
    if (lower(request_.header("expect")) == "100-continue" && !parser_->is_done())
      return invite_body();
    read_body();
  }

  void refuse_large(std::size_t limit) {
    closing_ = true;
    respond(refusal(413, "the body is larger than " + std::to_string(limit) + " bytes"));
  }

  // What went wrong while a request was read; a peer that left gets no answer.
  void refuse_broken(Code error) {
    closing_ = true;
    if (error == http::error::header_limit)
      return respond(refusal(431, "the headers are larger than " +
                                      std::to_string(shared_.options.header_bytes) + " bytes"));
    if (error == http::error::body_limit) return refuse_large(limit_);
    const bool left = error == http::error::end_of_stream || error == http::error::partial_message;
    if (!left && error.category() == http::make_error_code(http::error::end_of_stream).category())
      return respond(refusal(400, "the request is no HTTP: " + error.message()));
    close_now();
  }

  void invite_body() {
    static constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
    tcp().expires_after(shared_.options.patience);
    asio::async_write(stream_, asio::buffer(kContinue), [self = self()](Code error, std::size_t) {
      if (error) return self->close_now();
      self->read_body();
    });
  }

  void read_body() {
    if (parser_->is_done()) return dispatch();
    tcp().expires_after(shared_.options.patience);
    http::async_read_some(stream_, buffer_, *parser_,
                          [self = self()](Code error, std::size_t) { self->on_body(error); });
  }

  void on_body(Code error) {
    if (error == http::error::need_buffer) error = {};
    if (error) return refuse_broken(error);
    const std::size_t in_memory = parser_->get().body().size();
    const std::size_t bytes = in_memory + (body_file_ ? body_file_->size() : 0);
    shared_.body_bytes += bytes - held_bytes_;
    held_bytes_ = bytes;
    if (shared_.body_bytes > shared_.options.bodies_bytes) {
      closing_ = true;
      return respond(refusal(503, "too many large requests at one time; try again"));
    }
    if (is_too_slow(body_since_, bytes)) return close_now();
    if (in_memory > shared_.options.memory_body_bytes) return keep_on_disk();
    read_body();
  }

  // What has come of a large body goes to disk, on a thread of the handlers.
  void keep_on_disk() {
    tcp().expires_never();
    asio::post(shared_.handlers, [self = self()] {
      std::string problem = self->move_to_disk(self->parser_->get().body());
      self->post([self, problem = std::move(problem)] {
        if (problem.empty()) return self->read_body();
        self->closing_ = true;
        self->respond(refusal(507, problem));
      });
    });
  }

  // Gives what went wrong, or "".
  std::string move_to_disk(std::string& bytes) {
    try {
      if (!body_file_) body_file_ = std::make_shared<BodyFile>(shared_.options.body_folder);
      body_file_->append(bytes);
      bytes.clear();
      return "";
    } catch (const std::exception& error) {
      return error.what();
    }
  }

  bool is_too_slow(Clock::time_point since, std::uint64_t bytes) const {
    const std::chrono::duration<double> time = Clock::now() - since;
    const std::chrono::duration<double> patience = shared_.options.patience;
    return time > patience &&
           static_cast<double>(bytes) < shared_.options.least_rate * (time - patience).count();
  }

  void become_socket() {
    // Nothing may follow before the socket is open.
    if (buffer_.size() > 0) {
      closing_ = true;
      return respond(refusal(400, "frames came before the web socket was open"));
    }
    tcp().expires_never();
    // From here on the socket counts in its place.
    shared_.sessions.remove(this);
    open_socket(std::move(stream_), parser_->release(), request_, shared_);
  }

  void dispatch() {
    tcp().expires_never();
    keep_alive_ = parser_->keep_alive() && !closing_;
    request_.body = std::move(parser_->get().body());
    parser_.reset();
    asio::post(shared_.handlers, [self = self()] { self->prepare(self->handled()); });
  }

  // On a thread of the handlers.
  Response handled() {
    if (body_file_) {
      std::string problem = move_to_disk(request_.body);
      if (!problem.empty()) return refusal(507, problem);
      std::string().swap(request_.body);
      request_.stored_body = std::move(body_file_);
    }
    // The head is needed again for the answer, the body is not: no copy of it.
    std::string body = std::exchange(request_.body, {});
    Request request = request_;
    request.body = std::move(body);
    return shared_.router.handle(std::move(request));
  }

  // Answers without a handler.
  void respond(Response response) {
    keep_alive_ = parser_ && parser_->keep_alive() && !closing_;
    forget_body();
    asio::post(shared_.handlers, [self = self(), response = std::move(response)]() mutable {
      self->prepare(std::move(response));
    });
  }

  // On a thread of the handlers.
  void prepare(Response response) {
    forget_body();
    shared_.gate.finish(request_, response);
    try {
      answer_ =
          make_answer(request_, std::move(response),
                      {.keep_alive = keep_alive_ && !shared_.stopping, .compress = compress_});
    } catch (const std::exception& error) {
      log::error("{} {}: {}", name_of(request_.method), request_.path, error.what());
      answer_ = make_answer(request_, Response::empty(500), {.keep_alive = false});
    }
    next_piece();
    post([self = self()] { self->begin_writing(); });
  }

  // Fills piece_ with the next bytes of the file. On a thread of the handlers.
  void next_piece() {
    const std::uint64_t left = answer_.length - std::min(answer_.length, file_done_);
    piece_.resize(static_cast<std::size_t>(std::min<std::uint64_t>(left, kPiece)));
    if (piece_.empty()) return;
    piece_fine_ = answer_.file.read(answer_.offset + file_done_, piece_.data(), piece_.size());
    file_done_ += piece_.size();
  }

  void begin_writing() {
    release_body();
    write_since_ = Clock::now();
    tcp().expires_after(shared_.options.patience);
    asio::async_write(stream_, asio::buffer(answer_.head),
                      [self = self()](Code error, std::size_t) {
                        if (error) return self->close_now();
                        if (self->answer_.file) return self->write_file();
                        if (self->answer_.stream) return self->begin_stream();
                        self->write_body();
                      });
  }

  void write_body() {
    if (written_ == answer_.body.size()) return on_written();
    if (is_too_slow(write_since_, written_)) return close_now();
    tcp().expires_after(shared_.options.patience);
    const std::size_t bytes = std::min(kPiece, answer_.body.size() - written_);
    asio::async_write(stream_, asio::buffer(answer_.body.data() + written_, bytes),
                      [self = self(), bytes](Code error, std::size_t) {
                        if (error) return self->close_now();
                        self->written_ += bytes;
                        self->write_body();
                      });
  }

  void write_file() {
    if (piece_.empty()) return on_written();
    if (!piece_fine_ || is_too_slow(write_since_, written_)) return close_now();
    tcp().expires_after(shared_.options.patience);
    asio::async_write(stream_, asio::buffer(piece_), [self = self()](Code error, std::size_t) {
      if (error) return self->close_now();
      self->written_ += self->piece_.size();
      if (self->file_done_ == self->answer_.length) return self->on_written();
      asio::post(self->shared_.handlers, [self] {
        self->next_piece();
        self->post([self] { self->write_file(); });
      });
    });
  }

  void begin_stream() {
    streaming_ = true;
    answer_.stream->wake_with([weak = this->weak_from_this()] {
      if (auto self = weak.lock()) self->post([self] { self->on_wake(); });
    });
    ask_stream();
  }

  // Also for a wake that comes while next() is at work or what it gave is being sent.
  void on_wake() {
    woken_ = true;
    quiet_.cancel();
  }

  void ask_stream() {
    if (closing_ || shared_.stopping) return close_now();
    woken_ = false;
    asio::post(shared_.handlers, [self = self()] {
      BodyStream::Piece piece;
      try {
        piece = self->answer_.stream->next();
      } catch (const std::exception& error) {
        log::error("{} {}: {}", name_of(self->request_.method), self->request_.path, error.what());
        piece.ended = true;
      }
      self->post([self, piece = std::move(piece)] { self->send_piece(piece); });
    });
  }

  void send_piece(const BodyStream::Piece& piece) {
    if (!tcp().socket().is_open()) return;
    if (piece.text.empty() && !piece.ended) return wait_for_stream(piece.again_in);
    piece_ = chunked(piece.text, piece.ended);
    tcp().expires_after(shared_.options.patience);
    asio::async_write(stream_, asio::buffer(piece_),
                      [self = self(), ended = piece.ended](Code error, std::size_t) {
                        if (error) return self->close_now();
                        if (ended) return self->on_written();
                        self->ask_stream();
                      });
  }

  void wait_for_stream(std::chrono::milliseconds time) {
    if (woken_) return ask_stream();
    tcp().expires_never();
    quiet_.expires_after(time);
    quiet_.async_wait([self = self()](Code) {
      if (self->tcp().socket().is_open()) self->ask_stream();
    });
  }

  void on_written() {
    streaming_ = false;
    const bool goes_on = answer_.keep_alive && !closing_;
    answer_ = {};
    written_ = 0;
    file_done_ = 0;
    std::string().swap(piece_);
    if (goes_on) return read_head();
    say_goodbye();
  }

  // The peer may still send what was refused: the end of our side is told first, so that it reads
  // the answer before its connection breaks.
  void say_goodbye() {
    Code ignored;
    tcp().expires_after(kLinger);
    if constexpr (kEncrypted) {
      stream_.async_shutdown([self = self()](Code) { self->close_now(); });
    } else {
      tcp().socket().shutdown(Tcp::socket::shutdown_send, ignored);
      linger();
    }
  }

  void linger() {
    piece_.resize(kPiece);
    tcp().async_read_some(asio::buffer(piece_), [self = self()](Code error, std::size_t bytes) {
      self->lingered_ += bytes;
      if (error || self->lingered_ > kLingerBytes) return self->close_now();
      self->linger();
    });
  }

  static Response refusal(int status, const std::string& sentence) {
    return Response::json(Json{{"error", sentence}}, status);
  }

  Stream stream_;
  Shared& shared_;
  asio::steady_timer quiet_;  // while a stream has nothing to send
  bool streaming_ = false;
  bool woken_ = false;
  const std::string peer_;
  bool compress_;
  beast::flat_buffer buffer_;
  std::optional<Parser> parser_;
  Request request_;
  std::shared_ptr<BodyFile> body_file_;  // of a large body that is being read
  Answer answer_;
  std::string piece_;
  bool piece_fine_ = true;
  bool keep_alive_ = false;
  bool closing_ = false;
  std::size_t limit_ = 0;
  std::size_t held_bytes_ = 0;
  std::uint64_t file_done_ = 0;
  std::uint64_t written_ = 0;
  std::size_t lingered_ = 0;
  Clock::time_point body_since_;
  Clock::time_point write_since_;
  std::atomic<std::int64_t> idle_since_{0};
};

template <class Stream>
void open(Stream stream, Shared& shared, const Tcp::endpoint& peer) {
  auto connection = std::make_shared<Connection<Stream>>(std::move(stream), shared, peer);
  if (shared.sessions.add(connection))
    connection->begin();
  else
    connection->refuse();
}

}  // namespace

void open_connection(Tcp::socket socket, Shared& shared) {
  Code error;
  const Tcp::endpoint peer = socket.remote_endpoint(error);
  if (error) return;
  socket.set_option(Tcp::no_delay(true), error);
  beast::tcp_stream stream(std::move(socket));
  if (shared.tls)
    open(beast::ssl_stream<beast::tcp_stream>(std::move(stream), *shared.tls), shared, peer);
  else
    open(std::move(stream), shared, peer);
}

}  // namespace distorch::server
