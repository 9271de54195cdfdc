#pragma once
#include <boost/asio/ip/address.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/beast/http/string_body.hpp>
#include <string>

#include "distorch/server/http.h"

namespace distorch::server {

/// Reads method, address (as it was sent, with its query) and headers into `request`. Gives what is
/// wrong with them, or "".
std::string read_request_head(
    const boost::beast::http::request<boost::beast::http::string_body>& head, Request& request);

/// "127.0.0.1", also for an IPv4 address that came in through an IPv6 socket.
std::string plain_address(const boost::asio::ip::address& address);

/// Whether this address is a web socket's.
bool is_socket_address(std::string_view address);
/// Whether a body for this address has the limit of uploads.
bool is_upload(std::string_view address);

}  // namespace distorch::server
