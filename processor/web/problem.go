package web

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/processor"
)

// Problem is the body of an answer that is an error (RFC 9457).
type Problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	// Class is the class of the failure, the [Reason] why the request was rejected, or
	// malformed, token, unknown, method, large, type, store, starting, gone (the client).
	Class   string   `json:"class"`
	Message string   `json:"message"`
	Module  string   `json:"module,omitempty"` // name of the module
	Stack   []string `json:"stack,omitempty"`  // of the guest; only under Config.Debug
}

const problemType = "application/problem+json"

// fail answers with a problem.
func (s *Server) fail(w http.ResponseWriter, e *entry, code int, class, message string) {
	writeProblem(w, e, &Problem{Status: code, Class: class, Message: message})
}

// failMethod answers a request whose method is not allowed.
func (s *Server) failMethod(w http.ResponseWriter, e *entry, r *http.Request, allowed string) {
	w.Header().Set("Allow", allowed)
	s.fail(w, e, http.StatusMethodNotAllowed, "method", fmt.Sprintf("%.20s %.200s: want %s", r.Method, r.URL.Path, allowed))
}

func writeProblem(w http.ResponseWriter, e *entry, p *Problem) {
	p.Type, p.Title = "about:blank", http.StatusText(p.Status)
	if e != nil {
		p.Module = e.Name
	}
	body, err := json.Marshal(p)
	if err != nil { // strings and numbers
		panic(err)
	}
	w.Header().Set("Content-Type", problemType)
	w.Header()[headerNoSniff] = noSniff
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(body, '\n')) // a client that is gone has no use for it
}

// rejections are the status codes and messages of reasons.
var rejections = map[Reason]struct {
	code    int
	message string
}{
	ReasonFull:     {http.StatusServiceUnavailable, "too many requests wait already"},
	ReasonWait:     {http.StatusServiceUnavailable, "no worker was free in time"},
	ReasonDeadline: {http.StatusGatewayTimeout, "the time limit of the request passed before it could run"},
	ReasonRate:     {http.StatusTooManyRequests, "this client sends too many requests"},
	ReasonDraining: {http.StatusServiceUnavailable, "the server ends"},
}

// reject rejects a request.
func (s *Server) reject(w http.ResponseWriter, e *entry, reason Reason) {
	if o := s.config.Observer; o != nil {
		o.Rejected(reason)
	}
	r := rejections[reason]
	if r.code != http.StatusGatewayTimeout {
		w.Header().Set("Retry-After", strconv.Itoa(s.retryAfter()))
	}
	s.fail(w, e, r.code, string(reason), r.message)
}

// codes are the status codes of classes.
var codes = map[abi.Class]int{
	abi.ClassGuest:          http.StatusUnprocessableEntity,
	abi.ClassTrap:           http.StatusInternalServerError,
	abi.ClassMemory:         http.StatusInternalServerError,
	abi.ClassFuel:           http.StatusInternalServerError,
	abi.ClassExit:           http.StatusInternalServerError,
	abi.ClassABI:            http.StatusInternalServerError,
	abi.ClassHost:           http.StatusServiceUnavailable,
	abi.ClassGuestRetryable: http.StatusServiceUnavailable,
	abi.ClassRequeued:       http.StatusServiceUnavailable,
	abi.ClassTimeout:        http.StatusGatewayTimeout,
}

const lateMessage = "the time limit of the request passed before it had its output"

// failWith answers with the reason why a request has no output.
func (s *Server) failWith(w http.ResponseWriter, r *http.Request, e *entry, err error) {
	rejected, isRejected := errors.AsType[*rejectedError](err)
	failure, isFailure := errors.AsType[*abi.Failure](err)
	_, isStore := errors.AsType[*processor.StoreError](err)
	switch {
	case isRejected:
		s.reject(w, e, rejected.reason)
	case isFailure:
		s.failGuest(w, e, failure)
	case isStore:
		w.Header().Set("Retry-After", strconv.Itoa(s.retryAfter()))
		s.fail(w, e, http.StatusServiceUnavailable, "store", err.Error())
	case s.hard.Err() != nil:
		s.reject(w, e, ReasonDraining)
	case r.Context().Err() != nil: // nobody reads this
		s.fail(w, e, http.StatusServiceUnavailable, "gone", "the client is gone")
	case errors.Is(err, context.DeadlineExceeded):
		s.fail(w, e, http.StatusGatewayTimeout, string(abi.ClassTimeout), lateMessage)
	case errors.Is(err, processor.ErrInput):
		s.fail(w, e, http.StatusBadRequest, "malformed", err.Error())
	default:
		s.fail(w, e, http.StatusInternalServerError, string(abi.ClassHost), err.Error())
	}
}

func (s *Server) failGuest(w http.ResponseWriter, e *entry, f *abi.Failure) {
	f = s.words(f)
	code, known := codes[f.Class]
	if !known {
		code = http.StatusInternalServerError
	}
	if code == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", strconv.Itoa(s.retryAfter()))
	}
	p := &Problem{Status: code, Class: string(f.Class), Message: f.Message}
	if s.config.Debug {
		p.Stack = f.Stack
	}
	writeProblem(w, e, p)
}

func (s *Server) words(f *abi.Failure) *abi.Failure {
	if s.config.Words == nil {
		return f
	}
	return s.config.Words(f)
}

// authorized reports whether a request has the token, if one is needed. The time that
// it takes does not depend on the token.
func (s *Server) authorized(r *http.Request) bool {
	if s.config.Token == "" {
		return true
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	given, want := sha256.Sum256([]byte(strings.TrimSpace(token))), sha256.Sum256([]byte(s.config.Token))
	return strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(given[:], want[:]) == 1
}

// health answers probes.
func (s *Server) health(w http.ResponseWriter, r *http.Request, ok bool) {
	if !isRead(r) {
		s.failMethod(w, nil, r, "GET, HEAD")
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	if !ok {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = w.Write([]byte("not ready\n"))
		return
	}
	_, _ = w.Write([]byte("ok\n"))
}

// describe writes the description of a module.
func (s *Server) describe(w http.ResponseWriter, r *http.Request, e *entry) {
	if !isRead(r) {
		s.failMethod(w, e, r, "GET, HEAD")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	_ = encoder.Encode(struct { // a client that is gone has no use for it
		Name   string `json:"name"`
		SHA256 string `json:"sha256"`
		Exec   string `json:"exec"`
		Batch  string `json:"batch"`
		Module any    `json:"module"`
		About  any    `json:"about,omitempty"`
	}{e.Name, strings.TrimPrefix(e.digest, "sha256:"), "/v1/" + e.Name + "/exec", "/v1/" + e.Name + "/batch", e.Module.Module.Description(), e.About})
}
