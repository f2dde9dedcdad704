#include "http.h"

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <new>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fault.h"
#include "http_request.h"
#include "log.h"

namespace autoglm::edge {

namespace {

constexpr int kWaiting = 16;        // clients that wait to be served
constexpr int kPatience = 10000;    // ms in which a request must come, and in which an answer must be taken

using Clock = std::chrono::steady_clock;

class Connection {
public:
    explicit Connection(int handle) : handle_(handle), end_(Clock::now() + std::chrono::milliseconds(kPatience)) {}
    ~Connection() { close(handle_); }
    Connection(const Connection&) = delete;
    Connection& operator=(const Connection&) = delete;

    // Append what has come; false when nothing more will. Throws Refusal when it takes too long.
    bool receive(std::string& text) {
        char block[4096];
        if (!await(POLLIN)) throw Refusal{408, "the request took too long to come"};
        const ssize_t count = recv(handle_, block, sizeof block, 0);
        if (count > 0) text.append(block, static_cast<size_t>(count));
        return count > 0;
    }

    void send_all(const std::string& text) {
        end_ = Clock::now() + std::chrono::milliseconds(kPatience);
        for (size_t at = 0; at < text.size() && await(POLLOUT);) {
            const ssize_t count = send(handle_, text.data() + at, text.size() - at, MSG_NOSIGNAL);
            if (count < 0 && errno != EAGAIN && errno != EINTR) return;
            if (count > 0) at += static_cast<size_t>(count);
        }
        // let the client read the answer before what it still sends is answered by a reset
        shutdown(handle_, SHUT_WR);
        end_ = Clock::now() + std::chrono::milliseconds(200);
        char block[4096];
        for (int i = 0; i < 256 && await(POLLIN) && recv(handle_, block, sizeof block, 0) > 0; ++i) {}
    }

    bool gone() const {
        struct pollfd state {handle_, 0, 0};
        return poll(&state, 1, 0) > 0 && (state.revents & (POLLHUP | POLLERR)) != 0;
    }

private:
    bool await(short what) const {
        for (;;) {
            const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end_ - Clock::now()).count();
            if (left <= 0) return false;
            struct pollfd state {handle_, what, 0};
            const int found = poll(&state, 1, static_cast<int>(left));
            if (found > 0) return true;
            if (found == 0 || errno != EINTR) return false;
        }
    }

    const int handle_;
    Clock::time_point end_;
};

int listen_on(int port, int& found) {
    const int handle = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    expect(handle >= 0, std::string("no socket: ") + std::strerror(errno));
    const int yes = 1;
    setsockopt(handle, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    struct sockaddr_in address {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<uint16_t>(port));
    auto* plain = reinterpret_cast<struct sockaddr*>(&address);
    if (bind(handle, plain, sizeof address) != 0 || listen(handle, kWaiting) != 0) {
        const int fault = errno;
        close(handle);
        throw Fault("port " + std::to_string(port) + " cannot be had: " + std::strerror(fault) + "; choose another with --http");
    }
    socklen_t length = sizeof address;
    getsockname(handle, plain, &length);
    found = ntohs(address.sin_port);
    return handle;
}

std::string reply(int status, const std::string& body) {
    return "HTTP/1.1 " + std::to_string(status) + " " + reason(status) + "\r\nContent-Type: application/json\r\n" +
           "Content-Length: " + std::to_string(body.size()) +
           "\r\nConnection: close\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n" +
           (status == 405 ? "Allow: GET, POST\r\n\r\n" : "\r\n") + body;
}

std::string refusal(const Refusal& fault) {
    return reply(fault.status, "{\"error\": {\"message\": " + json_text(fault.message) +
                               ", \"type\": \"invalid_request_error\", \"code\": " + std::to_string(fault.status) + "}}\n");
}

class Server {
public:
    Server(Model& model, Author& author, const Options& options)
        : model_(model), author_(author), options_(options), bounds_{8 << 10, 2 * text_bytes(model.context()) + 4096} {
        text_.reserve(bounds_.head + bounds_.body + 4096);
    }

    void answer(int handle) {
        Connection connection(handle);
        try {
            text_.clear();
            Request request;
            while (!read_request(text_, bounds_, request))
                if (!connection.receive(text_)) {
                    if (text_.empty()) return;
                    throw Refusal{400, "the request ended before it was whole"};
                }
            connection.send_all(handle_request(request, connection));
        } catch (const Refusal& fault) {
            log("refused with %d: %s", fault.status, fault.message.c_str());
            connection.send_all(refusal(fault));
        } catch (const std::bad_alloc&) {
            connection.send_all(refusal({503, "no memory is left for this request"}));
        } catch (const std::exception& error) {
            log("failed: %s", error.what());
            connection.send_all(refusal({500, "the request could not be answered"}));
        }
    }

private:
    std::string handle_request(const Request& request, const Connection& connection) {
        if (request.path == "/healthz") {
            if (request.method != "GET") throw Refusal{405, "/healthz takes GET"};
            return reply(200, "{\"status\": \"ok\", \"model\": " + json_text(model_.manifest().name) + "}\n");
        }
        if (request.path != "/v1/completions") throw Refusal{404, "there are POST /v1/completions and GET /healthz"};
        if (request.method != "POST") throw Refusal{405, "/v1/completions takes POST"};
        Sampling sampling = options_.sampling;
        std::string prompt;
        try {
            read_order(request.body, sampling, prompt);
            const Answer answer = author_.answer(prompt, sampling, [&](const std::string&) { return !connection.gone(); });
            log("answered %d tokens after %d in %.1f ms", answer.tokens, answer.prompt_tokens, answer.whole_ms);
            return reply(200, completion(answer));
        } catch (const Fault& error) {
            throw Refusal{400, error.what()};
        }
    }

    std::string completion(const Answer& answer) {
        std::string out = "{\"id\": \"cmpl-" + std::to_string(++number_) + "\", \"object\": \"text_completion\", \"created\": " +
                          std::to_string(static_cast<long long>(std::time(nullptr))) + ", \"model\": ";
        append_json(out, model_.manifest().name);
        out += ", \"choices\": [{\"index\": 0, \"text\": ";
        append_json(out, answer.text);
        out += std::string(", \"logprobs\": null, \"finish_reason\": \"") + (answer.finished ? "stop" : "length") + "\"}], ";
        out += "\"usage\": {\"prompt_tokens\": " + std::to_string(answer.prompt_tokens) + ", \"completion_tokens\": " +
               std::to_string(answer.tokens) + ", \"total_tokens\": " +
               std::to_string(answer.prompt_tokens + answer.tokens) + "}}\n";
        return out;
    }

    Model& model_;
    Author& author_;
    const Options& options_;
    const Bounds bounds_;
    std::string text_;
    long long number_ = 0;
};

}  // namespace

int serve(Model& model, Author& author, const Options& options) {
    int port = 0;
    const int listening = listen_on(options.port, port);
    Server server(model, author, options);
    std::fprintf(stderr, "autoglm-edge: http://127.0.0.1:%d serves POST /v1/completions and GET /healthz\n", port);
    for (;;) {
        const int handle = accept4(listening, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (handle >= 0) {
            server.answer(handle);
        } else if (errno != EINTR && errno != ECONNABORTED) {
            const int fault = errno;
            log("accept: %s", std::strerror(fault));
            poll(nullptr, 0, 100);  // too many files, or no memory: it may pass
        }
    }
}

}  // namespace autoglm::edge
