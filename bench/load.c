/* load: an HTTP load generator for LLM proxies.  One epoll thread.
 *
 *   cc -O2 -o load load.c -lm
 *   ./load --port 9900 --path /v1/messages --body body.json --conns 16 --duration 5
 *
 * Options (every one takes a value):
 *   --host 127.0.0.1  --port N  --path P  --header 'k: v' (may be repeated)  --body FILE
 *   --mode json|sse|hold
 *       json  closed loop, one latency sample an answer
 *       sse   closed loop of whole streams; first-event, first-delta and event delays
 *       hold  open all streams, wait until each has sent a delta, measure --duration
 *             seconds, then close them all
 *   --conns C  --warmup S  --duration S  --ramp S (spread of the connections' starts)
 *   --rate R       requests a second, open loop (json and sse): latency counts from the
 *                  moment the schedule wanted the request sent
 *   --max-requests N   stop after N answers
 *   --min-requests N --max-duration S   a slow target: go on until N answers, S seconds at most
 *   --session NAME   send "NAME: 00000000-0000-4000-8000-<number of the connection>": each its own session
 *   --sessions N --first-session F   instead, requests take the numbers F to F+N-1 in turn
 *   --deltas N     deltas that a whole stream must have, else it counts as an error
 *   --ready-timeout S  hold: give up waiting for all streams after S seconds
 *
 * Prints "@start <ns>" and "@end <ns>" at the two ends of the measured window (so that a
 * parent can read the proxy's CPU time there) and then one line of JSON.  Times in µs.
 * Event delays come from the ~T<19 digits>~ stamps that mock_upstream puts in each delta.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static int64_t now_ns(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1000000000LL + t.tv_nsec; }
static void die(const char *m) { perror(m); exit(1); }

/* ---- histogram of ns: 512 buckets an octave (0.2 %) ---- */
#define SUB 9
typedef struct { uint64_t n; double sum; int64_t max; uint32_t b[(64 - SUB) << SUB]; } hist;
static int h_idx(int64_t v) { if (v < (1 << SUB)) return v < 0 ? 0 : v; int e = 63 - __builtin_clzll(v); return ((e - SUB + 1) << SUB) + ((v >> (e - SUB)) & ((1 << SUB) - 1)); }
static int64_t h_val(int i) { if (i < (1 << SUB)) return i; int e = (i >> SUB) + SUB - 1; int64_t m = i & ((1 << SUB) - 1); return ((1LL << SUB) + m) << (e - SUB); }
static void h_add(hist *h, int64_t v) { h->n++; h->sum += v; if (v > h->max) h->max = v; h->b[h_idx(v)]++; }
static double h_pct(hist *h, double p) { uint64_t want = ceil(h->n * p / 100), s = 0; if (!h->n) return -1; for (int i = 0; i < (int)(sizeof h->b / sizeof *h->b); i++) if ((s += h->b[i]) >= want && s) return h_val(i) / 1e3; return h->max / 1e3; }
static void h_print(const char *name, hist *h) {
    if (!h->n) { printf(",\"%s\":null", name); return; }
    printf(",\"%s\":{\"n\":%llu,\"mean\":%.2f,\"p50\":%.2f,\"p90\":%.2f,\"p99\":%.2f,\"p999\":%.2f,\"max\":%.2f}", name, (unsigned long long)h->n, h->sum / h->n / 1e3, h_pct(h, 50), h_pct(h, 90), h_pct(h, 99), h_pct(h, 99.9), h->max / 1e3);
}

enum { JSON, SSE, HOLD } mode = JSON;
enum { C_CLOSED, C_CONNECT, C_IDLE, C_SEND, C_WAIT };
typedef struct {
    int fd, st; int64_t start_at, t_send;
    size_t woff;
    char hb[8192]; size_t hlen; int hdr_done;
    int status, chunked, close; int64_t clen; /* -1: until close */
    int ck; int64_t crem;                     /* chunk state */
    int done;
    char *carry; size_t clen2, ccap;          /* unfinished SSE line */
    long deltas; int got_event, got_stop, ever; int want_out;
} conn;

static struct sockaddr_in addr; static char *req; static size_t req_len; static char *session_digits; /* 12 digits in the head, NULL: none */
static int C = 1, ep; static double warmup = 0.5, dur = 3, ramp = 0, rate = 0, ready_to = 30; static long max_req = 0, min_req = 0, want_deltas = -1, n_sessions = 0, first_session = 0, next_session = 0; static double max_dur = 0;
static hist lat, ttfe, ttfd, delay;
static int64_t t0, w_start, w_end; static int in_window, stop_all;
static int64_t n_done, n_err, n_events, n_deltas, n_bytes, w_done, w_err, w_events, w_deltas, w_bytes, n_conn_err, n_status_err, n_short;
static int64_t first_err_status; static char err_body[300]; static size_t err_len;
static int64_t sched_sent; static conn *cs; static int n_ready;
static conn **idle; static int n_idle;

static void c_mod(conn *c, int out) { if (c->want_out == out) return; c->want_out = out; struct epoll_event e = { .events = EPOLLIN | (out ? EPOLLOUT : 0), .data.ptr = c }; epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &e); }
static int n_closed;
static void c_drop(conn *c) { if (c->fd >= 0) close(c->fd); c->fd = -1; n_closed += c->st != C_CLOSED; c->st = C_CLOSED; c->want_out = 0; }
static void c_connect(conn *c) {
    int one = 1; c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0); if (c->fd < 0) die("socket");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    int r = connect(c->fd, (void *)&addr, sizeof addr);
    if (r && errno != EINPROGRESS) { n_conn_err++; c_drop(c); c->start_at = now_ns() + 20000000; return; }
    c->st = C_CONNECT; c->want_out = 1; n_closed--;
    struct epoll_event e = { .events = EPOLLIN | EPOLLOUT, .data.ptr = c }; epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &e);
}
static void c_write(conn *c) {
    while (c->woff < req_len) {
        ssize_t r = send(c->fd, req + c->woff, req_len - c->woff, MSG_NOSIGNAL);
        if (r < 0) { if (errno == EINTR) continue; if (errno == EAGAIN) { c_mod(c, 1); return; } c->st = C_WAIT; c_mod(c, 0); return; /* the answer, or its end, is read next */ }
        c->woff += r;
    }
    c_mod(c, 0); c->st = C_WAIT;
}
static void c_send(conn *c, int64_t t) {
    if (session_digits) { char *d = session_digits + 11; long number = n_sessions ? first_session + next_session++ % n_sessions : c - cs; for (long k = 0, v = number; k < 12; k++, v /= 10) *d-- = '0' + v % 10; }  /* the head leaves in the first send, before the next caller */
    c->st = C_SEND; c->woff = 0; c->hlen = 0; c->hdr_done = 0; c->done = 0; c->ck = 0; c->crem = 0; c->clen2 = 0; c->deltas = 0; c->got_event = c->got_stop = 0; c->t_send = t;
    c_write(c);
}
/* the connection is free: send at once (closed loop) or wait for the schedule */
static void c_free(conn *c, int64_t now) {
    if (stop_all) { c->st = C_IDLE; return; }
    if (rate > 0) {
        double due = (now - t0) / 1e9 * rate + 1;
        if (sched_sent < (int64_t)due) { int64_t t = t0 + (int64_t)(sched_sent++ / rate * 1e9); c_send(c, t); }
        else { c->st = C_IDLE; idle[n_idle++] = c; }
    } else c_send(c, now);
}
static void fail(conn *c, int64_t now) { n_err++; if (in_window) w_err++; c_drop(c); c->start_at = now + 5000000; }
static void complete(conn *c, int64_t now) {
    int ok = c->status == 200;
    if (!ok) { n_status_err++; if (!first_err_status) first_err_status = c->status; }
    if (ok && mode != JSON && (!c->got_stop || !c->got_event || (want_deltas >= 0 && c->deltas != want_deltas))) { ok = 0; n_short++; }
    if (!ok) { n_err++; if (in_window) w_err++; }
    else { n_done++; if (in_window) { w_done++; h_add(&lat, now - c->t_send); } }
    if (max_req && n_done + n_err >= max_req) stop_all = 1;
    if (c->close) { c_drop(c); c->start_at = now; } else c_free(c, now);
}
static void sse_line(conn *c, const char *l, size_t n, int64_t now) {
    if (n < 6 || memcmp(l, "data:", 5)) return;
    n_events++; if (in_window) w_events++;
    if (!c->got_event) { c->got_event = 1; if (in_window) h_add(&ttfe, now - c->t_send); }
    const char *p = l, *e = l + n; int hit = 0;
    while ((p = memchr(p, '~', e - p))) {
        p++; if (e - p < 21 || *p != 'T' || p[20] != '~') continue;
        int64_t v = 0; for (int k = 1; k < 20; k++) v = v * 10 + (p[k] - '0');
        p += 21; hit = 1; n_deltas++; if (in_window) { w_deltas++; h_add(&delay, now - v); }
        if (c->deltas++ == 0) { if (in_window) h_add(&ttfd, now - c->t_send); if (!c->ever) { c->ever = 1; n_ready++; } }
    }
    if (!hit && (memmem(l, n < 64 ? n : 64, "message_stop", 12) || memmem(l, n < 64 ? n : 64, "[DONE]", 6))) c->got_stop = 1;
}
static void feed(conn *c, const char *p, size_t n, int64_t now) {
    n_bytes += n; if (in_window) w_bytes += n;
    if (c->status != 200) { size_t k = sizeof err_body - 1 - err_len; if (k > n) k = n; memcpy(err_body + err_len, p, k); err_len += k; return; }
    if (mode == JSON) return;
    const char *e = p + n;
    while (p < e) {
        const char *nl = memchr(p, '\n', e - p); size_t k = (nl ? nl : e) - p;
        if (nl && !c->clen2) sse_line(c, p, k, now);
        else {
            if (c->clen2 + k > c->ccap) { c->ccap = (c->clen2 + k) * 2 + 512; c->carry = realloc(c->carry, c->ccap); }
            memcpy(c->carry + c->clen2, p, k); c->clen2 += k;
            if (nl) { sse_line(c, c->carry, c->clen2, now); c->clen2 = 0; }
        }
        p += k + (nl != NULL);
    }
}
static void header(conn *c) {
    c->status = atoi(c->hb + 9); c->chunked = 0; c->close = !memcmp(c->hb, "HTTP/1.0", 8); c->clen = -1;
    for (char *l = c->hb; (l = strstr(l, "\r\n")); ) {
        l += 2;
        if (!strncasecmp(l, "content-length:", 15)) c->clen = atoll(l + 15);
        else if (!strncasecmp(l, "transfer-encoding:", 18)) { size_t k = strcspn(l, "\r"); c->chunked = memmem(l, k, "chunked", 7) != NULL; }
        else if (!strncasecmp(l, "connection:", 11)) { size_t k = strcspn(l, "\r"); if (memmem(l, k, "close", 5) || memmem(l, k, "Close", 5)) c->close = 1; }
    }
    if (c->chunked) c->clen = -1; else if (c->clen < 0) c->close = 1;
    if (c->clen == 0) c->done = 1;
}
/* returns bytes used */
static void input(conn *c, const char *p, size_t n, int64_t now) {
    while (n && !c->done) {
        if (!c->hdr_done) {
            size_t room = sizeof c->hb - 1 - c->hlen, k = n < room ? n : room, old = c->hlen;
            if (!k) { c->status = 599; c->done = 1; c->close = 1; return; }
            memcpy(c->hb + c->hlen, p, k); c->hlen += k; c->hb[c->hlen] = 0;
            char *e = strstr(c->hb + (old > 3 ? old - 3 : 0), "\r\n\r\n");
            if (!e) { p += k; n -= k; continue; }
            size_t used = e + 4 - c->hb - old; e[2] = 0;
            if (!memcmp(c->hb + 9, "100", 3)) { c->hlen = 0; p += used; n -= used; continue; }
            c->hdr_done = 1; header(c); p += used; n -= used; continue;
        }
        if (c->chunked) {
            switch (c->ck) {
            case 0: { /* size line */
                char ch = *p++; n--;
                if (ch == '\n') { c->ck = c->crem ? 1 : 3; break; }
                int v = ch >= '0' && ch <= '9' ? ch - '0' : (ch | 32) >= 'a' && (ch | 32) <= 'f' ? (ch | 32) - 'a' + 10 : -1;
                if (v >= 0) c->crem = c->crem * 16 + v; else if (ch == ';') c->ck = 5;
                break; }
            case 5: if (*p == '\n') c->ck = c->crem ? 1 : 3; p++; n--; break;
            case 1: { size_t k = (int64_t)n < c->crem ? n : (size_t)c->crem; feed(c, p, k, now); p += k; n -= k; if (!(c->crem -= k)) c->ck = 2; break; }
            case 2: if (*p == '\n') c->ck = 0; p++; n--; break;       /* CRLF after the data */
            case 3: if (*p == '\n') c->done = 1; else if (*p != '\r') c->ck = 4; p++; n--; break;
            case 4: if (*p == '\n') c->ck = 3; p++; n--; break;       /* a trailer */
            }
        } else {
            size_t k = n; if (c->clen >= 0 && (int64_t)k > c->clen) k = c->clen;
            feed(c, p, k, now); p += k; n -= k;
            if (c->clen >= 0 && !(c->clen -= k)) c->done = 1;
        }
    }
}
static void on_event(conn *c, uint32_t ev) {
    static char buf[262144];
    if (c->st == C_CLOSED) return;
    if (c->st == C_CONNECT) {
        int err = 0; socklen_t l = sizeof err; getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &l);
        if (err) { n_conn_err++; c_drop(c); c->start_at = now_ns() + 20000000; return; }
        if (!(ev & EPOLLOUT)) return;
        c_mod(c, 0); c_free(c, now_ns()); return;
    }
    if ((ev & EPOLLOUT) && c->st == C_SEND) c_write(c);
    if (!(ev & (EPOLLIN | EPOLLHUP | EPOLLERR))) return;
    for (;;) {
        ssize_t r = recv(c->fd, buf, sizeof buf, 0);
        int64_t now = now_ns();
        if (r < 0) { if (errno == EINTR) continue; if (errno == EAGAIN) return; if (c->st == C_IDLE) { c_drop(c); return; } fail(c, now); return; }
        if (r == 0) {
            if (c->st == C_IDLE) { for (int k = 0; k < n_idle; k++) if (idle[k] == c) { idle[k] = idle[--n_idle]; break; } c_drop(c); c->start_at = now; return; }
            if (c->hdr_done && !c->chunked && c->clen < 0) { c->close = 1; complete(c, now); return; }
            fail(c, now); return;
        }
        input(c, buf, r, now);
        if (c->done) { complete(c, now); return; }
        if ((size_t)r < sizeof buf) return;
    }
}
int main(int argc, char **argv) {
    const char *host = "127.0.0.1", *path = "/v1/messages", *bodyf = NULL; int port = 9900; char hd[8192] = ""; 
    signal(SIGPIPE, SIG_IGN);
    for (int i = 1; i + 1 < argc; i += 2) {
        char *o = argv[i], *v = argv[i + 1];
        if (!strcmp(o, "--host")) host = v; else if (!strcmp(o, "--port")) port = atoi(v); else if (!strcmp(o, "--path")) path = v;
        else if (!strcmp(o, "--header")) { strcat(hd, v); strcat(hd, "\r\n"); } else if (!strcmp(o, "--body")) bodyf = v;
        else if (!strcmp(o, "--mode")) mode = !strcmp(v, "sse") ? SSE : !strcmp(v, "hold") ? HOLD : JSON;
        else if (!strcmp(o, "--conns")) C = atoi(v); else if (!strcmp(o, "--warmup")) warmup = atof(v); else if (!strcmp(o, "--duration")) dur = atof(v);
        else if (!strcmp(o, "--ramp")) ramp = atof(v); else if (!strcmp(o, "--rate")) rate = atof(v); else if (!strcmp(o, "--max-requests")) max_req = atol(v);
        else if (!strcmp(o, "--min-requests")) min_req = atol(v); else if (!strcmp(o, "--max-duration")) max_dur = atof(v);
        else if (!strcmp(o, "--session")) { strcat(hd, v); strcat(hd, ": 00000000-0000-4000-8000-000000000000\r\n"); }
        else if (!strcmp(o, "--sessions")) n_sessions = atol(v); else if (!strcmp(o, "--first-session")) first_session = atol(v);
        else if (!strcmp(o, "--deltas")) want_deltas = atol(v); else if (!strcmp(o, "--ready-timeout")) ready_to = atof(v);
        else { fprintf(stderr, "unknown option %s\n", o); return 2; }
    }
    char *body = ""; size_t blen = 0;
    if (bodyf) { FILE *f = fopen(bodyf, "rb"); if (!f) die(bodyf); fseek(f, 0, SEEK_END); blen = ftell(f); rewind(f); body = malloc(blen + 1); if (fread(body, 1, blen, f) != blen) die("read"); fclose(f); }
    req = malloc(blen + 16384);
    req_len = sprintf(req, "POST %s HTTP/1.1\r\nhost: %s:%d\r\ncontent-type: application/json\r\n%scontent-length: %zu\r\n\r\n", path, host, port, hd, blen);
    session_digits = memmem(req, req_len, "00000000-0000-4000-8000-", 24); if (session_digits) session_digits += 24;
    memcpy(req + req_len, body, blen); req_len += blen;
    addr.sin_family = AF_INET; addr.sin_port = htons(port); if (!inet_pton(AF_INET, host, &addr.sin_addr)) { fprintf(stderr, "--host takes an IPv4 address\n"); return 2; }
    ep = epoll_create1(EPOLL_CLOEXEC); cs = calloc(C, sizeof *cs); idle = calloc(C, sizeof *idle);
    t0 = now_ns(); n_closed = C;
    for (int i = 0; i < C; i++) { cs[i].fd = -1; cs[i].start_at = t0 + (int64_t)(ramp * 1e9 * i / C); }
    int64_t w0 = t0 + (int64_t)((warmup + (mode == HOLD ? 0 : ramp)) * 1e9), ready_at = 0, next_scan = t0; int began = 0;
    static struct epoll_event ev[1024];
    for (;;) {
        int64_t now = now_ns();
        if (now >= next_scan) {
            next_scan = now + (n_closed ? 2000000 : 10000000);
            if (n_closed && !stop_all) for (int i = 0; i < C; i++) if (cs[i].st == C_CLOSED && cs[i].start_at <= now) c_connect(&cs[i]);
        }
        if (rate > 0) while (n_idle && !stop_all) { double due = (now - t0) / 1e9 * rate + 1; if (sched_sent >= (int64_t)due) break; int64_t t = t0 + (int64_t)(sched_sent++ / rate * 1e9); c_send(idle[--n_idle], t); }
        if (!began) {
            int go = now >= w0;
            if (mode == HOLD) {
                if (!ready_at && n_ready >= C) ready_at = now;
                go = (ready_at && now >= ready_at + (int64_t)(warmup * 1e9)) || now - t0 > (int64_t)((ramp + ready_to) * 1e9);
                if (n_err + n_conn_err > 4 * C + 100) go = 1;
            }
            if (go) { began = 1; in_window = 1; printf("@start %lld\n", (long long)now); fflush(stdout); w_start = now_ns(); }
        } else if ((now >= w_start + (int64_t)(dur * 1e9) && (w_done >= min_req || now >= w_start + (int64_t)(max_dur * 1e9))) || stop_all || n_err > 100000) {
            w_end = now_ns(); in_window = 0; printf("@end %lld\n", (long long)w_end); fflush(stdout); break;
        }
        if (stop_all && !began) { printf("@start %lld\n", (long long)t0); w_start = t0; w_end = now; printf("@end %lld\n", (long long)now); fflush(stdout); w_done = n_done; w_events = n_events; w_deltas = n_deltas; w_err = n_err; break; }
        int64_t next = next_scan; if (began && w_start + (int64_t)(dur * 1e9) < next && w_done >= min_req) next = w_start + (int64_t)(dur * 1e9);
        if (rate > 0 && n_idle) { int64_t t = t0 + (int64_t)(sched_sent / rate * 1e9); if (t < next) next = t; }
        now = now_ns(); int64_t d = next > now ? next - now : 0; struct timespec ts = { d / 1000000000LL, d % 1000000000LL };
        int n = epoll_pwait2(ep, ev, 1024, &ts, NULL);
        for (int k = 0; k < n; k++) on_event(ev[k].data.ptr, ev[k].events);
    }
    usleep(20000); /* the parent reads the proxy's CPU time before the connections close */
    int open_streams = 0; for (int i = 0; i < C; i++) if (cs[i].st == C_WAIT && cs[i].deltas > 0) open_streams++;
    double secs = (w_end - w_start) / 1e9; struct rusage ru; getrusage(RUSAGE_SELF, &ru);
    printf("{\"secs\":%.4f,\"conns\":%d,\"requests\":%lld,\"errors\":%lld,\"events\":%lld,\"deltas\":%lld,\"bytes\":%lld,\"rps\":%.2f,\"events_s\":%.2f,\"deltas_s\":%.2f",
        secs, C, (long long)w_done, (long long)w_err, (long long)w_events, (long long)w_deltas, (long long)w_bytes, w_done / secs, w_events / secs, w_deltas / secs);
    printf(",\"all_requests\":%lld,\"all_errors\":%lld,\"conn_errors\":%lld,\"status_errors\":%lld,\"short_streams\":%lld,\"ready\":%d,\"ready_s\":%.3f,\"open_streams\":%d,\"backlog\":%lld,\"req_bytes\":%zu",
        (long long)n_done, (long long)n_err, (long long)n_conn_err, (long long)n_status_err, (long long)n_short, n_ready, ready_at ? (ready_at - t0) / 1e9 : -1.0, open_streams, rate > 0 ? (long long)((w_end - t0) / 1e9 * rate) - (long long)sched_sent : 0LL, req_len);
    h_print("latency_us", &lat); h_print("first_event_us", &ttfe); h_print("first_delta_us", &ttfd); h_print("event_delay_us", &delay);
    printf(",\"self_cpu_s\":%.3f", ru.ru_utime.tv_sec + ru.ru_stime.tv_sec + (ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) / 1e6);
    if (first_err_status) { for (size_t k = 0; k < err_len; k++) if (err_body[k] == '"' || err_body[k] == '\\' || (unsigned char)err_body[k] < 32 || (unsigned char)err_body[k] > 126) err_body[k] = '\''; printf(",\"first_error\":\"%lld %.*s\"", (long long)first_err_status, (int)err_len, err_body); }
    printf("}\n");
    return 0;
}
