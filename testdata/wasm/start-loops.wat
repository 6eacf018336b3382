;; The start function never ends, so instantiation does not either.
;; Build: make -C guest-examples wat
(module $start-loops
  (memory (export "memory") 1)
  (func $exec (export "exec") (param $ptr i32) (param $size i32) (result i64)
    (i64.or (i64.shl (i64.extend_i32_u (local.get $ptr)) (i64.const 32))
      (i64.extend_i32_u (local.get $size))))
  (func $alloc (export "alloc") (param $size i32) (result i32) (i32.const 64))
  (func $start (loop $forever (br $forever)))
  (start $start))
