"""What is served over aiohttp: pages, on connections that the wire hands over to it. Imported where there is a page."""
