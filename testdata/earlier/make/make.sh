#!/bin/sh
# make.sh COMMAND EMBED CHECKOUT: see README.md.
set -e
B=$1 EMBED=$2 ROOT=$3 AT=/tmp/before
rm -rf $AT; mkdir -p $AT/data/sub; cd $AT
cp $ROOT/guest-examples/square/wat/square.wasm $ROOT/guest-examples/faulty/c/faulty.wasm $ROOT/testdata/command/command.wasm $ROOT/testdata/wasm/echo.wasm $ROOT/testdata/wasm/context.wasm .
printf 'in a file\n' > data/a.txt; printf 'in a directory\n' > data/sub/b.txt
printf 'one\ntwo\nthree\nfour\nfive\n' > lines.txt
printf 'id;name\n1;"a;b"\n2;c\n' > table.csv
printf '{"id":"a","do":"ok","value":1}\n{"id":"b","do":"permanent","message":"no way"}\n' > faulty.jsonl
printf '\001\002\003\004\005\006\007\010' > chunks.cbor
printf '\202\001\002' > context.cbor
# {"id":1,"do":"work","n":3000000} and others, of which --ids selects some
printf '\000\003\243bid\030\144bdodworkan\032\000\055\306\300\242bidaabdobok' > work.cbor
run() { $B run --store store --progress none --retries 0 "$@" >/dev/null || test $? = 1; }
run square.wasm chunks.cbor --receipt squares.receipt.json --meta owner=me --name squares
run faulty.wasm work.cbor --ids '0,100,"a"' --seed 7 --fuel 100000 --max-failures 60% --bundle bundles --id-key id
run command.wasm --lines lines.txt --chunk-lines 2 --arg upper --env 'B=x, y' --env A= --dir data:/d --receipt lines.receipt.json --name lines
run echo.wasm --csv table.csv --delimiter ';' --id-key '' --name csv
run faulty.wasm --jsonl faulty.jsonl --retry-on timeout,trap --backoff 1ms --name jsonl
run context.wasm chunks.cbor --context context.cbor --range 2-5 --no-metering --name context
run command.wasm --files data --split 8 --split-lines --stdin cbor --arg count --max-chunk 1MiB --name files
run echo.wasm --range-of 0-9 --native-nans --name range
run echo.wasm --lines - --as bytes --chunk-bytes 8 --name piped < lines.txt
run command.wasm --lines lines.txt --arg cat --arg /d/sub/b.txt --dir data:/d --fuel 100 --fail-fast --bundle bundles --name dirs
$EMBED
rm -f store/store.db-wal store/store.db-shm
gzip -9n < store/store.db > store.db.gz
