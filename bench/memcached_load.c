/*
 * tarn-memcached-load: a bounded load for a memcached server that listens on a Unix socket.
 *
 *     tarn-memcached-load SOCKET OPERATIONS
 *
 * Many connections, each with keys of its own; on each, batches of set, get and delete are sent in one piece
 * and their replies read and checked, byte for byte, against what this side remembers. A connection is closed
 * and made anew from time to time, as clients of web servers do. One thread, few system calls: the server,
 * not this program, should be what is busy.
 *
 * The work is the same in every run. At the end one line says what was done; two servers that answer rightly
 * give the same line. A wrong answer is one line on stderr and status 3.
 */
#include "rng.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    CONNECTIONS = 48,
    KEYS_PER_CONNECTION = 600,
    BATCH_OPERATIONS = 16,
    BATCHES_PER_LIFE = 40, /* then the connection is made anew */
    SMALLEST_VALUE_BYTES = 16,
    DOUBLINGS = 8, /* up to 4 KiB */
    BUFFER_BYTES = 256 * 1024,
    CHOICES = 16, /* of which */
    SET_CHOICES = 5,
    DELETE_CHOICES = 1,
    LINE_BYTES = 256,
    EXIT_USAGE = 2,
    EXIT_WRONG_ANSWER = 3,
};

enum action { ACTION_SET, ACTION_GET, ACTION_DELETE };

struct operation {
    enum action action;
    uint32_t key;
    uint32_t version; /* that a get must find, 0 for none */
};

struct connection {
    int socket;
    uint32_t number;
    unsigned batches;
    struct rng rng;
    uint32_t versions[KEYS_PER_CONNECTION]; /* 0: not on the server */
    struct operation batch[BATCH_OPERATIONS];
};

struct totals {
    uint64_t sets, gets, hits, deletes, bytes;
};

static struct connection connections[CONNECTIONS];
static struct totals totals;
static char buffer[BUFFER_BYTES];
static size_t buffer_start, buffer_end; /* what was read and not yet looked at */

__attribute__((noreturn, format(printf, 1, 2))) static void give_up(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    fputs("tarn-memcached-load: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(EXIT_WRONG_ANSWER);
}

static uint32_t value_size(const struct connection *connection, uint32_t key, uint32_t version)
{
    struct rng rng = rng_seed(((uint64_t)connection->number << 48) ^ ((uint64_t)key << 24) ^ version);
    uint32_t base = (uint32_t)SMALLEST_VALUE_BYTES << rng_below(&rng, DOUBLINGS);

    return base + rng_below(&rng, base);
}

/* Letters that differ from value to value and from place to place. */
static char value_byte(uint32_t key, uint32_t version, uint32_t at)
{
    return (char)('a' + (key + 7 * version + at) % 26);
}

static void connect_to(struct connection *connection, const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (strlen(path) >= sizeof(address.sun_path))
        give_up("the path %s is too long for a socket", path);
    strcpy(address.sun_path, path);
    connection->socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connection->socket < 0 ||
        connect(connection->socket, (const struct sockaddr *)&address, sizeof(address)) != 0)
        give_up("%s: %s", path, strerror(errno));
}

static void send_all(int socket, const char *bytes, size_t count)
{
    while (count > 0) {
        ssize_t sent = send(socket, bytes, count, MSG_NOSIGNAL);

        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0)
            give_up("the server does not take requests: %s", strerror(errno));
        bytes += sent;
        count -= (size_t)sent;
    }
}

static void read_more(int socket)
{
    ssize_t count;

    memmove(buffer, buffer + buffer_start, buffer_end - buffer_start);
    buffer_end -= buffer_start;
    buffer_start = 0;
    if (buffer_end == BUFFER_BYTES)
        give_up("a reply is longer than %d bytes", BUFFER_BYTES);
    do
        count = recv(socket, buffer + buffer_end, BUFFER_BYTES - buffer_end, 0);
    while (count < 0 && errno == EINTR);
    if (count <= 0)
        give_up("the server has closed the connection");
    buffer_end += (size_t)count;
}

/* The next `count` bytes of the reply. */
static const char *reply_bytes(int socket, size_t count)
{
    const char *bytes;

    while (buffer_end - buffer_start < count)
        read_more(socket);
    bytes = buffer + buffer_start;
    buffer_start += count;
    return bytes;
}

static void expect_line(int socket, const char *expected)
{
    size_t length = strlen(expected);
    const char *line = reply_bytes(socket, length);

    if (memcmp(line, expected, length) != 0)
        give_up("the server says «%.*s» instead of «%s»", (int)length, line, expected);
}

static void choose(struct connection *connection, struct operation *operation)
{
    uint32_t choice = rng_below(&connection->rng, CHOICES);

    operation->key = rng_below_skewed(&connection->rng, KEYS_PER_CONNECTION);
    operation->action = ACTION_GET;
    if (choice < SET_CHOICES)
        operation->action = ACTION_SET;
    else if (choice < SET_CHOICES + DELETE_CHOICES)
        operation->action = ACTION_DELETE;
    operation->version = connection->versions[operation->key];
    if (operation->action == ACTION_SET)
        operation->version = (uint32_t)totals.sets + 1;
    if (operation->action != ACTION_GET)
        connection->versions[operation->key] = operation->action == ACTION_SET ? operation->version : 0;
}

/* Writes the request at `at` and returns its length. */
static size_t put_request(const struct connection *connection, const struct operation *operation, char *at)
{
    uint32_t size = value_size(connection, operation->key, operation->version);
    int head;

    if (operation->action != ACTION_SET)
        return (size_t)sprintf(at, "%s c%u:key:%u\r\n", operation->action == ACTION_GET ? "get" : "delete",
                               connection->number, operation->key);
    head = sprintf(at, "set c%u:key:%u %u 0 %u\r\n", connection->number, operation->key, operation->version,
                   size);
    for (uint32_t index = 0; index < size; index++)
        at[head + (int)index] = value_byte(operation->key, operation->version, index);
    memcpy(at + head + (int)size, "\r\n", 2);
    return (size_t)head + size + 2;
}

static void count_operation(const struct connection *connection, const struct operation *operation)
{
    switch (operation->action) {
    case ACTION_SET:
        totals.sets++;
        totals.bytes += value_size(connection, operation->key, operation->version);
        break;
    case ACTION_GET:
        totals.gets++;
        totals.hits += operation->version > 0;
        break;
    case ACTION_DELETE:
        totals.deletes++;
        break;
    }
}

static void send_batch(struct connection *connection)
{
    static char requests[BUFFER_BYTES];
    size_t length = 0;

    for (int index = 0; index < BATCH_OPERATIONS; index++) {
        struct operation *operation = &connection->batch[index];

        choose(connection, operation);
        count_operation(connection, operation);
        length += put_request(connection, operation, requests + length);
    }
    send_all(connection->socket, requests, length);
}

static void check_value(const struct connection *connection, const struct operation *operation)
{
    uint32_t size = value_size(connection, operation->key, operation->version);
    char line[LINE_BYTES];
    const char *value;

    sprintf(line, "VALUE c%u:key:%u %u %u\r\n", connection->number, operation->key, operation->version, size);
    expect_line(connection->socket, line);
    value = reply_bytes(connection->socket, size);
    for (uint32_t index = 0; index < size; index++)
        if (value[index] != value_byte(operation->key, operation->version, index))
            give_up("byte %u of the value of c%u:key:%u is wrong", index, connection->number, operation->key);
    expect_line(connection->socket, "\r\n");
}

static void check_replies(const struct connection *connection)
{
    buffer_start = buffer_end = 0;
    for (int index = 0; index < BATCH_OPERATIONS; index++) {
        const struct operation *operation = &connection->batch[index];

        if (operation->action == ACTION_SET) {
            expect_line(connection->socket, "STORED\r\n");
        } else if (operation->action == ACTION_DELETE) {
            expect_line(connection->socket, operation->version > 0 ? "DELETED\r\n" : "NOT_FOUND\r\n");
        } else {
            if (operation->version > 0)
                check_value(connection, operation);
            expect_line(connection->socket, "END\r\n");
        }
    }
}

/* All connections send before any is read, so that the server has work on all of its threads. */
static void one_round(const char *path)
{
    for (int index = 0; index < CONNECTIONS; index++)
        send_batch(&connections[index]);
    for (int index = 0; index < CONNECTIONS; index++) {
        struct connection *connection = &connections[index];

        check_replies(connection);
        /* The lives end at different times, not all in one round. */
        if ((++connection->batches + connection->number) % BATCHES_PER_LIFE == 0) {
            close(connection->socket);
            connect_to(connection, path);
        }
    }
}

int main(int argc, char **argv)
{
    char *end = NULL;
    unsigned long operations = argc == 3 ? strtoul(argv[2], &end, 10) : 0;

    if (operations == 0 || *end != '\0') {
        fprintf(stderr, "usage: tarn-memcached-load SOCKET OPERATIONS\n");
        return EXIT_USAGE;
    }
    for (uint32_t number = 0; number < CONNECTIONS; number++) {
        connections[number].number = number;
        connections[number].rng = rng_seed(number + 1);
        connect_to(&connections[number], argv[1]);
    }
    while (totals.sets + totals.gets + totals.deletes < operations)
        one_round(argv[1]);
    printf("sets %llu gets %llu hits %llu deletes %llu bytes %llu\n", (unsigned long long)totals.sets,
           (unsigned long long)totals.gets, (unsigned long long)totals.hits,
           (unsigned long long)totals.deletes, (unsigned long long)totals.bytes);
    return 0;
}
