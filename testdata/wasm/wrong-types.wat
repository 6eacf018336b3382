;; Every export of the ABI, with a wrong type or kind.
;; Build: make -C guest-examples wat
(module $wrong-types
  (memory 1)
  (table (export "memory") 1 funcref)
  (func $alloc (export "alloc") (param $size i64) (result i32) (i32.const 0))
  (func $exec (export "exec") (param $ptr i32) (param $size i32) (result i32) (i32.const 0))
  (global $aggregate (export "aggregate") i32 (i32.const 0))
  (func $merge (export "merge") (param $ptr i32) (result i64) (i64.const 0))
  (func $setup (export "setup") (param $ptr i32) (param $size i32))
  (func $_initialize (export "_initialize") (result i32) (i32.const 0)))
