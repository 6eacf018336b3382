// Package web answers requests over HTTP (RFC 9110), with the same outputs, fuel and
// failures as any other runner.
//
// A [Server] is an [http.Handler] over modules, each under a name:
//
//	POST /v1/NAME/exec   one request, one answer
//	POST /v1/NAME/batch  a stream of requests, answered as they arrive
//	GET  /v1/NAME        description of the module
//	GET  /healthz, /readyz, /metrics
//
// It bounds the running requests, the waiting requests and the memory for bodies,
// rejects further requests, and never executes a request after its deadline. [Client]
// is a runner that uses such a server.
package web
