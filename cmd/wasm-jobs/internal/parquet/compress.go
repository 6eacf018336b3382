package parquet

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go/format"
	"github.com/pierrec/lz4/v4"
)

var errCompressed = errors.New("damaged: compressed data of a page is invalid")

// decompress returns size bytes of content.
func decompress(codec format.CompressionCodec, b []byte, size int) (content []byte, err error) {
	switch codec {
	case format.Uncompressed:
		content = b
	case format.Snappy:
		if n, err := snappy.DecodedLen(b); err != nil || n != size || n > 32*len(b)+64 { // the format has at most 64 bytes for 3
			return nil, errCompressed
		}
		content, err = snappy.Decode(make([]byte, size), b)
	case format.Gzip:
		r, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			return nil, errCompressed
		}
		return readSize(r, size)
	case format.Brotli:
		return readSize(brotli.NewReader(bytes.NewReader(b)), size)
	case format.Zstd:
		r, err := zstd.NewReader(bytes.NewReader(b), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return nil, errCompressed
		}
		defer r.Close()
		return readSize(r, size)
	case format.Lz4Raw:
		content, err = lz4Block(b, size)
	case format.Lz4:
		content, err = lz4Frames(b, size)
	default:
		return nil, fmt.Errorf("compression %v: %w", codec, ErrUnsupported)
	}
	if err != nil || len(content) != size {
		return nil, errCompressed
	}
	return content, nil
}

func readSize(r io.Reader, size int) ([]byte, error) {
	var b bytes.Buffer // grows with the content, and not by what the page says
	if n, err := b.ReadFrom(io.LimitReader(r, int64(size)+1)); err != nil || n != int64(size) {
		return nil, errCompressed
	}
	return b.Bytes(), nil
}

func lz4Block(b []byte, size int) ([]byte, error) {
	if size > 256*len(b)+64 { // the format has at most 255 bytes for 1
		return nil, errCompressed
	}
	content := make([]byte, size)
	if size == 0 {
		return content, nil
	}
	n, err := lz4.UncompressBlock(b, content)
	return content[:max(n, 0)], err
}

// lz4Frames decompresses the form of old writers: blocks after their two sizes, or one
// block.
func lz4Frames(b []byte, size int) (content []byte, err error) {
	for rest := b; len(content) < size; {
		if len(rest) < 8 {
			return lz4Block(b, size)
		}
		unpacked, packed := binary.BigEndian.Uint32(rest), binary.BigEndian.Uint32(rest[4:])
		if uint64(packed) > uint64(len(rest)-8) || uint64(unpacked) > uint64(size-len(content)) || unpacked == 0 {
			return lz4Block(b, size)
		}
		block, err := lz4Block(rest[8:8+packed], int(unpacked))
		if err != nil {
			return lz4Block(b, size)
		}
		content, rest = append(content, block...), rest[8+packed:]
	}
	return content, nil
}
