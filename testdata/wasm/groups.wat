;; Returns every chunk. Its aggregate is the number of outputs, at most 23, and its
;; merge the number of partial results: not the aggregate of all outputs.
;; Build: make -C guest-examples wat
(module
  (memory (export "memory") 1)
  (func (export "alloc") (param i32) (result i32) (i32.const 1024))
  (func (export "exec") (param $ptr i32) (param $len i32) (result i64)
    (i64.or (i64.shl (i64.extend_i32_u (local.get $ptr)) (i64.const 32)) (i64.extend_i32_u (local.get $len))))
  (func $count (export "aggregate") (export "merge") (param $ptr i32) (param $len i32) (result i64)
    (i32.store8 (i32.const 16) (i32.and (i32.load8_u (local.get $ptr)) (i32.const 0x1f)))
    (i64.const 0x1000000001)))
