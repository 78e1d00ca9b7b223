"""What is served over aiohttp: pages, on connections that the wire lends it. Imported where there is a page."""
