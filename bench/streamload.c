/* Streaming load generator for upstream.c: K concurrent SSE streams, one epoll loop.
 *
 *   streamload PORT PATH K ROUNDS CHUNKS SPREAD_US LIMIT_S REQUEST_BODY [HEADER...]
 *
 * Each of K slots runs ROUNDS streams one after the other over a kept-alive connection;
 * slot starts are spread evenly over SPREAD_US. Stops after LIMIT_S whatever happens.
 * Prints one JSON object: streams finished and correct (all CHUNKS in order, then [DONE]),
 * time to first byte (request sent -> first content delta), and the lag of each content
 * delta (upstream write -> seen here, by the nanosecond stamp that the delta carries).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define NS 1000000000LL
typedef struct {
    int fd, rounds, seen, bad, done, in_body, chunked, last_chunk;
    int64_t start, t_req, left; /* left: bytes of the current HTTP chunk (or of the body), -1 before its size line */
    char raw[70000]; size_t raw_n;
    char line[8192]; size_t line_n; /* the SSE line being put together */
} Slot;

static Slot *slots;
static char *req; static size_t req_n;
static int port, K, rounds, want, ep, active;
static long ok, failed, chunks, n_ttfb, n_lag, connects;
static float *ttfb, *lag; static size_t cap_ttfb, cap_lag;
static char why[200];

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * NS + t.tv_nsec;
}
static int cmp(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}
static double pct(float *v, long n, double p) { return n ? v[(long)((double)(n - 1) * p)] : 0; }

static void finish(Slot *s, int good, const char *reason);

static void begin(Slot *s) {
    if (s->fd < 0) {
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        int one = 1;
        s->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        connect(s->fd, (void *)&a, sizeof a); /* loopback: goes through at once or fails at send */
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = s};
        epoll_ctl(ep, EPOLL_CTL_ADD, s->fd, &e);
        connects++;
    }
    s->seen = s->bad = s->done = s->in_body = s->chunked = s->last_chunk = 0;
    s->raw_n = s->line_n = 0, s->left = -1;
    s->t_req = now_ns();
    ssize_t w = send(s->fd, req, req_n, MSG_NOSIGNAL);
    if (w < 0 && errno == EAGAIN) { /* connecting still: wait once */
        struct timespec t = {0, 200000};
        nanosleep(&t, NULL);
        w = send(s->fd, req, req_n, MSG_NOSIGNAL);
    }
    if (w != (ssize_t)req_n) finish(s, 0, "send failed");
}

static void finish(Slot *s, int good, const char *reason) {
    if (good && s->seen == want && s->done && !s->bad) ok++;
    else {
        failed++;
        if (!*why) snprintf(why, sizeof why, "%s seen=%d done=%d bad=%d", reason, s->seen, s->done, s->bad);
    }
    if (!good) { close(s->fd); s->fd = -1; }
    if (--s->rounds > 0) begin(s);
    else { active--; if (s->fd >= 0) close(s->fd); s->fd = -1; }
}

static void line(Slot *s, int64_t t) {
    s->line[s->line_n] = 0;
    if (!strncmp(s->line, "data: [DONE]", 12)) { s->done = 1; return; }
    char *at = s->line;
    while ((at = strchr(at, '@'))) {
        if (at - s->line < 7 || at[-7] != 'w') { at++; continue; }
        if (atoi(at - 6) != s->seen) s->bad++;
        if (!s->seen++) {
            if ((size_t)n_ttfb < cap_ttfb) ttfb[n_ttfb++] = (float)(t - s->t_req) / 1000;
        }
        if ((size_t)n_lag < cap_lag) lag[n_lag++] = (float)(t - atoll(at + 1)) / 1000;
        chunks++, at++;
    }
}

static void body(Slot *s, const char *p, size_t n, int64_t t) {
    while (n) {
        const char *nl = memchr(p, '\n', n);
        size_t m = nl ? (size_t)(nl - p) : n;
        if (s->line_n + m < sizeof s->line) memcpy(s->line + s->line_n, p, m), s->line_n += m;
        if (!nl) return;
        if (s->line_n) line(s, t);
        s->line_n = 0;
        p += m + 1, n -= m + 1;
    }
}

static void feed(Slot *s) {
    ssize_t r = recv(s->fd, s->raw + s->raw_n, sizeof s->raw - s->raw_n - 1, 0);
    if (r < 0 && errno == EAGAIN) return;
    if (r <= 0) { finish(s, 0, s->in_body ? "closed in body" : "closed"); return; }
    int64_t t = now_ns();
    s->raw_n += (size_t)r, s->raw[s->raw_n] = 0;
    char *p = s->raw, *end = s->raw + s->raw_n;
    if (!s->in_body) {
        char *h = strstr(p, "\r\n\r\n");
        if (!h) return;
        *h = 0;
        if (strncmp(p + 8, " 200", 4)) { finish(s, 0, p); return; }
        s->chunked = strcasestr(p, "transfer-encoding: chunked") != NULL;
        char *length = strcasestr(p, "content-length:"); /* a stream that was kept comes whole */
        if (!s->chunked && !length) { finish(s, 0, "neither chunked nor of a known length"); return; }
        if (!s->chunked) s->left = strtoll(length + 15, NULL, 10);
        s->in_body = 1, p = h + 4;
    }
    while (p < end) {
        if (s->left < 0) { /* chunk size line */
            char *eol = memmem(p, (size_t)(end - p), "\r\n", 2);
            if (!eol) break;
            s->left = (int64_t)strtoul(p, NULL, 16);
            p = eol + 2;
            if (!s->left) s->last_chunk = 1;
            s->left += 2; /* and its closing CRLF */
        }
        size_t n = (size_t)(end - p) < (size_t)s->left ? (size_t)(end - p) : (size_t)s->left;
        int64_t tail = s->chunked ? 2 : 0; /* the CRLF that closes a chunk */
        size_t data = s->left > tail ? ((int64_t)n > s->left - tail ? (size_t)(s->left - tail) : n) : 0;
        body(s, p, data, t);
        p += n, s->left -= (int64_t)n;
        if (!s->left) {
            s->left = -1;
            if (s->last_chunk || !s->chunked) { finish(s, 1, "incomplete"); return; }
        }
    }
    s->raw_n = (size_t)(end - p);
    memmove(s->raw, p, s->raw_n);
}

int main(int argc, char **argv) {
    if (argc < 9) { fprintf(stderr, "see the head of streamload.c\n"); return 2; }
    signal(SIGPIPE, SIG_IGN);
    port = atoi(argv[1]), K = atoi(argv[3]), rounds = atoi(argv[4]), want = atoi(argv[5]);
    int64_t spread = atoll(argv[6]) * 1000, limit = atoll(argv[7]) * NS;
    char heads[4096] = "";
    for (int i = 9; i < argc; i++) strcat(strcat(heads, argv[i]), "\r\n");
    req_n = (size_t)asprintf(&req, "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n%sContent-Length: %zu\r\n\r\n%s",
                             argv[2], port, heads, strlen(argv[8]), argv[8]);
    slots = calloc((size_t)K, sizeof *slots);
    ttfb = malloc(sizeof(float) * (cap_ttfb = (size_t)K * (size_t)rounds));
    cap_lag = (size_t)K * (size_t)rounds * (size_t)want;
    lag = malloc(sizeof(float) * (cap_lag = cap_lag > 20000000 ? 20000000 : cap_lag));
    ep = epoll_create1(0);
    int64_t t0 = now_ns();
    for (int i = 0; i < K; i++) slots[i].fd = -1, slots[i].rounds = rounds, slots[i].start = t0 + spread * i / K;
    active = K;
    int next = 0;
    struct epoll_event evs[512];
    while (active > 0) {
        int64_t t = now_ns(), wait = t0 + limit - t;
        if (wait <= 0) { snprintf(why, sizeof why, "time limit"); break; }
        while (next < K && slots[next].start <= t) begin(&slots[next++]);
        if (next < K && slots[next].start - t < wait) wait = slots[next].start - t;
        struct timespec ts = {wait / NS, wait % NS};
        int n = epoll_pwait2(ep, evs, 512, &ts, NULL);
        for (int i = 0; i < n; i++) if (((Slot *)evs[i].data.ptr)->fd >= 0) feed(evs[i].data.ptr);
    }
    double wall = (double)(now_ns() - t0) / 1e9;
    qsort(ttfb, (size_t)n_ttfb, sizeof *ttfb, cmp);
    qsort(lag, (size_t)n_lag, sizeof *lag, cmp);
    for (char *w = why; *w; w++) if (*w < ' ' || *w == '"' || *w == '\\') *w = ' ';
    printf("{\"streams_ok\":%ld,\"streams_failed\":%ld,\"unfinished\":%d,\"connects\":%ld,\"chunks\":%ld,\"wall_s\":%.3f,"
           "\"chunks_per_s\":%.0f,\"ttfb_us_p50\":%.0f,\"ttfb_us_p99\":%.0f,\"lag_us_p50\":%.0f,\"lag_us_p99\":%.0f,"
           "\"lag_us_max\":%.0f,\"why\":\"%s\"}\n",
           ok, failed, active, connects, chunks, wall, (double)chunks / wall, pct(ttfb, n_ttfb, .5), pct(ttfb, n_ttfb, .99),
           pct(lag, n_lag, .5), pct(lag, n_lag, .99), pct(lag, n_lag, 1), why);
    return 0;
}
