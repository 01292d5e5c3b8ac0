"""How tables are written."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def parquet_writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """Open a table of videos and numbers, which has a checksum of each page.

    Numbers hardly repeat, so a dictionary of them would only cost time.
    """
    return pq.ParquetWriter(
        path,
        schema,
        use_dictionary=["path"],  # pyright: ignore
        write_page_checksum=True,
    )
