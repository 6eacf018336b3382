package remote

import (
	"bytes"
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
)

// Limits of uploads in parts.
const (
	maxParts      = 10_000
	partsAtOnce   = 4
	abortDeadline = 10 * time.Second
)

// put writes the object from a file: with one request, or in parts if it is longer than
// one. Every request has a digest of its bytes.
func (s *s3) put(ctx context.Context, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return fail(s.name, err)
	}
	defer file.Close()
	stat, err := file.Stat()
	if err != nil {
		return fail(s.name, err)
	}
	whole := io.NewSectionReader(file, 0, stat.Size())
	if whole.Size() <= s.partSize {
		_, err = s.upload(ctx, whole, nil)
	} else {
		err = s.putParts(ctx, whole)
	}
	if err != nil {
		return fail(s.name, explain(err))
	}
	return nil
}

var binary = http.Header{"Content-Type": {"application/octet-stream"}}

// upload sends bytes, which are the object without a query, and returns their tag.
func (s *s3) upload(ctx context.Context, b *io.SectionReader, query url.Values) (tag string, err error) {
	c := &call{method: http.MethodPut, key: s.key, query: query, body: b}
	if query == nil {
		c.header = binary
	}
	err = repeat(ctx, func() error {
		resp, err := s.store.send(ctx, c)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection can be used again
		tag = resp.Header.Get("ETag")
		return nil
	})
	return tag, err
}

// part is a part that the store has.
type part struct {
	PartNumber int // from 1
	ETag       string
}

// putParts uploads in parts. Until the last request nobody sees the object; after a
// failure the store is asked to forget the parts.
func (s *s3) putParts(ctx context.Context, whole *io.SectionReader) error {
	var begun struct{ UploadId string }
	err := s.ask(ctx, &call{method: http.MethodPost, key: s.key, query: url.Values{"uploads": {""}}, header: binary}, &begun)
	if err != nil {
		return err
	}
	id := url.Values{"uploadId": {begun.UploadId}}
	parts, err := s.uploadParts(ctx, whole, begun.UploadId)
	if err == nil {
		err = s.complete(ctx, id, parts)
	}
	if err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortDeadline)
		defer cancel()
		_ = s.store.ask(ctx, &call{method: http.MethodDelete, key: s.key, query: id}, nil) // the first failure counts
	}
	return err
}

// ask asks until an answer comes.
func (s *s3) ask(ctx context.Context, c *call, into any) error {
	return repeat(ctx, func() error { return s.store.ask(ctx, c, into) })
}

// uploadParts uploads some parts at once, and returns when no request is left.
func (s *s3) uploadParts(ctx context.Context, whole *io.SectionReader, id string) ([]part, error) {
	size := max(s.partSize, (whole.Size()+maxParts-1)/maxParts)
	parts := make([]part, (whole.Size()+size-1)/size)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(partsAtOnce)
	for i := range parts {
		group.Go(func() error {
			at := int64(i) * size
			query := url.Values{"partNumber": {strconv.Itoa(i + 1)}, "uploadId": {id}}
			tag, err := s.upload(ctx, io.NewSectionReader(whole, at, min(size, whole.Size()-at)), query)
			if err == nil && tag == "" {
				err = fmt.Errorf("the server sent no tag of part %d", i+1)
			}
			parts[i] = part{i + 1, tag}
			return err
		})
	}
	return parts, group.Wait()
}

// complete makes the object of the parts.
func (s *s3) complete(ctx context.Context, id url.Values, parts []part) error {
	list, err := xml.Marshal(struct {
		XMLName xml.Name `xml:"CompleteMultipartUpload"`
		Part    []part
	}{Part: parts})
	if err != nil {
		return err
	}
	return s.ask(ctx, &call{method: http.MethodPost, key: s.key, query: id, body: io.NewSectionReader(bytes.NewReader(list), 0, int64(len(list)))}, nil)
}
