/* Resolves names with the C library's getaddrinfo and connects at once to every address.
 *
 *   lookup 4|6|any NAME...      one line for each address: ADDRESS ok|denied|timeout|ERROR
 *                               or, for a name without one: - nothing|failed: ERROR
 *
 * Built twice, with glibc and with musl. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <locale.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#ifndef AI_IDN
#define AI_IDN 0 /* musl converts no names */
#endif

/* Linux repeats the first SYN after a second (RFC 6298): what takes less was done by the first one. */
static const struct timeval first_syn = {.tv_usec = 900 * 1000};

static const char *try(const struct addrinfo *to)
{
    int fd = socket(to->ai_family, SOCK_STREAM, 0);
    const char *outcome = "ok";
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &first_syn, sizeof first_syn);
    if (connect(fd, to->ai_addr, to->ai_addrlen) != 0)
        outcome = errno == EPERM ? "denied" : errno == EINPROGRESS ? "timeout" : strerror(errno);
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
