;; setup keeps the context, which is then the output of every chunk. It must fit
;; the first 32 KiB, because chunks are written after it.
;; Build: make -C guest-examples wat
(module $context
  (memory (export "memory") 1)
  (global $context (mut i64) (i64.const 0))
  (global $free (mut i32) (i32.const 64))
  (func $alloc (export "alloc") (param $size i32) (result i32)
    (if (i32.gt_u (local.get $size) (i32.const 0x7fc0)) (then (return (i32.const 0))))
    (global.get $free))
  (func $setup (export "setup") (param $ptr i32) (param $size i32) (result i64)
    (global.set $context (i64.or (i64.shl (i64.extend_i32_u (local.get $ptr)) (i64.const 32))
      (i64.extend_i32_u (local.get $size))))
    (global.set $free (i32.const 0x8000))
    (i64.const 0)) ;; ignored
  (func $exec (export "exec") (param $ptr i32) (param $size i32) (result i64)
    (global.get $context)))
