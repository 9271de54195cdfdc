#pragma once
#include <boost/beast/http/message.hpp>
#include <boost/beast/http/string_body.hpp>

#include "distorch/server/connection.h"

namespace distorch::server {

/// Answers a request for a web socket and serves it until it is closed. `Stream` is a
/// beast::tcp_stream or a beast::ssl_stream over one, and runs on a strand. The id of the client is
/// the query's "clientId"; an id is made where it is absent, empty or too long.
template <class Stream>
void open_socket(Stream stream,
                 boost::beast::http::request<boost::beast::http::string_body> upgrade,
                 const Request& request, Shared& shared);

}  // namespace distorch::server
