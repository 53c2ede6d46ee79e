/* Resolves names with the C library's getaddrinfo and connects at once to every address.
 *
 *   lookup 4|6|any NAME...      one line for each address: ADDRESS ok|late|denied|timeout|ERROR
 *                               or, for a name without one: - nothing|failed: ERROR
 *
 * Built twice, with glibc and with musl. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <locale.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#ifndef AI_IDN
#define AI_IDN 0 /* musl converts no names */
#endif

static const struct timeval patience = {.tv_sec = 3};
/* No SYN is sent again before that: after half a second if it did not leave, else after a second (RFC 6298). */
static const long soonest_second_syn_ms = 450;

static long now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Whether the first SYN did not do. A machine that stands still for a while has lost nothing. */
static int is_by_second_syn(int fd, long began_ms)
{
    struct tcp_info info = {0};
    socklen_t length = sizeof info;
    getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length);
    return info.tcpi_total_retrans > 0 && now_ms() - began_ms >= soonest_second_syn_ms;
}

static const char *try(const struct addrinfo *to)
{
    int fd = socket(to->ai_family, SOCK_STREAM, 0);
    const char *outcome = "ok";
    long began_ms = now_ms();
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (connect(fd, to->ai_addr, to->ai_addrlen) != 0)
        outcome = errno == EPERM ? "denied" : errno == EINPROGRESS ? "timeout" : strerror(errno);
    else if (is_by_second_syn(fd, began_ms))
        outcome = "late";
    close(fd);
    return outcome;
}

static int has_no_address(int error)
{
    switch (error) {
    case EAI_NONAME:
#ifdef EAI_NODATA
    case EAI_NODATA:
#endif
#ifdef EAI_ADDRFAMILY
    case EAI_ADDRFAMILY:
#endif
        return 1;
    }
    return 0;
}

static void lookup(int family, const char *name)
{
    struct addrinfo hints = {.ai_family = family, .ai_socktype = SOCK_STREAM, .ai_flags = AI_IDN}, *found;
    int error = getaddrinfo(name, "80", &hints, &found);
    if (error != 0) {
        if (has_no_address(error))
            puts("- nothing");
        else
            printf("- failed: %s\n", gai_strerror(error));
        return;
    }
    for (const struct addrinfo *each = found; each; each = each->ai_next) {
        char text[INET6_ADDRSTRLEN];
        const void *address = each->ai_family == AF_INET
            ? (const void *)&((struct sockaddr_in *)each->ai_addr)->sin_addr
            : (const void *)&((struct sockaddr_in6 *)each->ai_addr)->sin6_addr;
        const char *outcome = try(each);
        printf("%s %s\n", inet_ntop(each->ai_family, address, text, sizeof text), outcome);
    }
    freeaddrinfo(found);
}

int main(int count, char **arguments)
{
    if (count < 3) {
        fprintf(stderr, "usage: lookup 4|6|any NAME...\n");
        return 2;
    }
    setlocale(LC_ALL, "C.UTF-8"); /* the one that names on the command line are in */
    int family = strcmp(arguments[1], "4") == 0 ? AF_INET : strcmp(arguments[1], "6") == 0 ? AF_INET6 : AF_UNSPEC;
    for (int each = 2; each < count; each++)
        lookup(family, arguments[each]);
    return 0;
}
