;; The bulk instructions of memories, with 5 MiB of it.
;; Build: wat2wasm bulk.wat
(module $bulk
  (memory (export "memory") 80)
  (func (export "fill") (param i32 i32 i32)
    (memory.fill (local.get 0) (local.get 1) (local.get 2)))
  (func (export "copy") (param i32 i32 i32)
    (memory.copy (local.get 0) (local.get 1) (local.get 2))))
