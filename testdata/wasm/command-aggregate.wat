;; A WASI command that also exports aggregate, which returns its input.
;; Build: make -C guest-examples wat
(module $command
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 8) "\20\00\00\00\06\00\00\00") ;; 6 bytes at 32
  (data (i32.const 32) "hello\n")
  (func $_start (export "_start")
    (drop (call $fd_write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 16))))
  (func $alloc (export "alloc") (param i32) (result i32) (i32.const 1024))
  (func $aggregate (export "aggregate") (param i32 i32) (result i64)
    (i64.or (i64.shl (i64.extend_i32_u (local.get 0)) (i64.const 32)) (i64.extend_i32_u (local.get 1)))))
