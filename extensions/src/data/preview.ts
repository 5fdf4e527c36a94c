/** The stored sample of a dataset as a grid. */

import { IThemeManager } from '@jupyterlab/apputils';
import {
  BasicKeyHandler,
  BasicMouseHandler,
  BasicSelectionModel,
  DataGrid,
  DataModel,
  TextRenderer
} from '@lumino/datagrid';
import { Panel, Widget } from '@lumino/widgets';

import { asProblem } from '../api';
import { asOf, cellText } from '../parts';
import { Dataset, ISample } from '../resources';

const NUMERIC = /^(u?int|float|double|halffloat|decimal)/;

class SampleModel extends DataModel {
  constructor(readonly sample: ISample) {
    super();
  }

  rowCount(region: DataModel.RowRegion): number {
    return region === 'body' ? this.sample.rows.length : 1;
  }

  columnCount(region: DataModel.ColumnRegion): number {
    return region === 'body' ? this.sample.columns.length : 1;
  }

  data(region: DataModel.CellRegion, row: number, column: number): string {
    switch (region) {
      case 'body':
        return cellText(this.sample.rows[row][column]);
      case 'column-header':
        return this.sample.columns[column].name;
      case 'row-header':
        return String(row + 1);
      default:
        return '';
    }
  }

  isNumeric(column: number): boolean {
    return NUMERIC.test(this.sample.columns[column]?.type ?? '');
  }
}

/** A grid that is filled once the sample has come. */
export class Preview extends Panel {
  constructor(
    dataset: Dataset,
    sample: () => Promise<ISample>,
    private readonly themes: IThemeManager | null
  ) {
    super();
    this.addClass('tp-preview');
    this.said.addClass('tp-preview-said');
    this.addWidget(this.said);
    void this.fill(dataset, sample);
    themes?.themeChanged.connect(this.dress, this);
  }

  dispose(): void {
    this.themes?.themeChanged.disconnect(this.dress, this);
    super.dispose();
  }

  private async fill(
    dataset: Dataset,
    load: () => Promise<ISample>
  ): Promise<void> {
    try {
      const sample = await load();
      const rows = sample.rows.length.toLocaleString();
      const all = dataset.status.rows?.toLocaleString() ?? '?';
      this.say(
        `${dataset.tenant}/${dataset.name}: ${rows} sample rows of ${all}, as of ${asOf(sample.as_of)}`
      );
      this.grid.dataModel = new SampleModel(sample);
      this.grid.keyHandler = new BasicKeyHandler();
      this.grid.mouseHandler = new BasicMouseHandler();
      this.grid.selectionModel = new BasicSelectionModel({
        dataModel: this.grid.dataModel
      });
      this.grid.addClass('tp-grid');
      this.widen(sample);
      this.dress();
      this.addWidget(this.grid);
    } catch (error) {
      const problem = asProblem(error);
      this.say(`${problem.message} ${problem.nextStep}`);
    }
  }

  private say(text: string): void {
    this.said.node.textContent = text;
  }

  private widen(sample: ISample): void {
    sample.columns.forEach((column, index) => {
      const longest = Math.max(
        column.name.length,
        ...sample.rows.slice(0, 50).map(row => cellText(row[index]).length)
      );
      const width = Math.min(Math.max(longest * 7.5 + 20, 64), 320);
      this.grid.resizeColumn('body', index, width);
    });
  }

  private dress(): void {
    const style = getComputedStyle(document.body);
    const colour = (name: string) =>
      style.getPropertyValue(`--jp-${name}`).trim();
    const stripes = [colour('layout-color1'), colour('layout-color0')];
    this.grid.style = {
      ...DataGrid.defaultStyle,
      voidColor: colour('layout-color1'),
      backgroundColor: colour('layout-color1'),
      headerBackgroundColor: colour('layout-color2'),
      gridLineColor: colour('border-color2'),
      headerGridLineColor: colour('border-color2'),
      rowBackgroundColor: index => stripes[index % 2]
    };
    const font = `12px ${colour('ui-font-family')}`;
    const renderer = new TextRenderer({
      font,
      textColor: colour('ui-font-color1'),
      horizontalAlignment: ({ region, column }) =>
        region === 'row-header' ||
        (this.grid.dataModel as SampleModel).isNumeric(column)
          ? 'right'
          : 'left'
    });
    this.grid.cellRenderers.update({
      body: renderer,
      'row-header': renderer,
      'column-header': renderer
    });
  }

  private readonly said = new Widget();
  private readonly grid = new DataGrid({
    defaultSizes: {
      rowHeight: 24,
      columnWidth: 96,
      rowHeaderWidth: 48,
      columnHeaderHeight: 28
    }
  });
}
