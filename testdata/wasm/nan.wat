;; Returns the bits of the NaN 0/0, as a byte string of eight bytes. They differ
;; between kinds of processors, and between engines, unless the host makes them the
;; same. Build: make -C guest-examples wat
(module
  (memory (export "memory") 1)
  (func (export "alloc") (param i32) (result i32) (i32.const 1024))
  (func (export "exec") (param i32 i32) (result i64) (local $zero f64)
    (i32.store8 (i32.const 16) (i32.const 0x48))
    (local.set $zero (f64.convert_i32_u (i32.shr_u (local.get 1) (i32.const 31))))
    (f64.store align=1 (i32.const 17) (f64.div (local.get $zero) (local.get $zero)))
    (i64.const 0x1000000009)))
